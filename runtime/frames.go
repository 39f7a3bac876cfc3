package runtime

import (
	"encoding/json"
	"fmt"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// Kinds of frames. wal knows the catalog alone.
const (
	kindEpoch   wal.FrameKind = 2 // the last frame of an epoch: with it the epoch is there
	kindPart    wal.FrameKind = 3 // sections of an epoch that its last frame lists
	kindControl wal.FrameKind = 4 // a change of what the runtime knows: jobs, topics, positions of senders, snapshots
)

// Kinds of sections that are this room's; bus has 0x1…, checkpoint 0x2….
const (
	sectionControl    uint8 = 0x30 // JSON of a control
	sectionLedger     uint8 = 0x31 // JSON of a ledger, in a catalog
	sectionBusCatalog uint8 = 0x32 // the bus's part of a catalog
)

// KindName names a frame's kind for people.
func KindName(k wal.FrameKind) string {
	switch k {
	case wal.KindCatalog:
		return "catalog"
	case wal.KindCatalogPart:
		return "catalog-part"
	case kindEpoch:
		return "epoch"
	case kindPart:
		return "part"
	case kindControl:
		return "control"
	}
	return fmt.Sprintf("kind-%d", k)
}

// SectionName names a section's kind for people.
func SectionName(k uint8) string {
	switch k {
	case bus.SectionRecords:
		return "records"
	case bus.SectionIndex:
		return "index"
	case checkpoint.SectionHeader:
		return "header"
	case checkpoint.SectionState:
		return "state"
	case sectionControl:
		return "control"
	case sectionLedger:
		return "ledger"
	case sectionBusCatalog:
		return "bus-catalog"
	}
	return fmt.Sprintf("section-%#x", k)
}

// control is one change of what the runtime knows, whole or absent. Its fields are applied in their order; what jobs claimed
// before it and no longer do, subscriptions and topics of outputs, goes with it.
type control struct {
	Topics        []topicEntry    `json:"topics,omitempty"`
	Jobs          []jobChange     `json:"jobs,omitempty"`
	Sent          []sentEntry     `json:"sent,omitempty"`
	Snapshot      *snapshotChange `json:"snapshot,omitempty"`
	Savepoint     *savepointEntry `json:"savepoint,omitempty"` // its file is there
	DropSavepoint string          `json:"drop_savepoint,omitempty"`

	Drops []bus.Drop       `json:"drops,omitempty"` // what subscriptions lose that are behind by the limit of a topic that drops the oldest
	Store *bus.StoreChange `json:"store,omitempty"` // what the topic store holds from now on

	DropTopics []bus.TopicID `json:"drop_topics,omitempty"` // go with their records; no job has anything of them

	DropFirst wal.LSN `json:"drop_first,omitempty"` // generations that end before it go
}

// topicEntry defines a topic or gives it what its definition had left out.
type topicEntry struct {
	ID   bus.TopicID   `json:"id"`
	Spec bus.TopicSpec `json:"spec"`
}

// jobChange adds a job, or changes one that has its id. Its fields are applied in their order.
type jobChange struct {
	ID         uint32        `json:"id"`
	Remove     bool          `json:"remove,omitempty"` // the job goes with its state and all its claims; no other field counts
	Name       string        `json:"name,omitempty"`
	Definition []byte        `json:"definition,omitempty"`
	Origin     Origin        `json:"origin,omitempty"`
	At         int64         `json:"at,omitempty"` // when, in Unix ms
	Phase      JobPhase      `json:"phase,omitempty"`
	Reason     string        `json:"reason,omitempty"`
	Program    string        `json:"program,omitempty"` // what it failed under
	Replace    bool          `json:"replace,omitempty"` // Inputs, Outputs and Steps are all that the job has now
	Inputs     []inputEntry  `json:"inputs,omitempty"`
	Outputs    []outputEntry `json:"outputs,omitempty"`
	Steps      []stepEntry   `json:"steps,omitempty"`
	Drops      []dropEntry   `json:"drops,omitempty"`     // state that goes; each LSN is this frame's
	Forget     []splitEntry  `json:"forget,omitempty"`    // splits whose positions go
	Until      int64         `json:"until,omitempty"`     // what was there before is kept until then, Unix ms
	Settle     bool          `json:"settle,omitempty"`    // what is kept so goes
	RollBack   bool          `json:"roll_back,omitempty"` // what is kept so comes back
	Restart    bool          `json:"restart,omitempty"`   // it begins anew, without state and positions
	Base       *baseEntry    `json:"base,omitempty"`      // it begins with a savepoint's
	Replay     []byte        `json:"replay,omitempty"`    // it begins with a replay
}

// dropEntry is state that a change took away, at its place in the log: what stands there or before is no more.
type dropEntry struct {
	Step  string  `json:"step"`
	Table string  `json:"table,omitempty"` // "" for all of the step's
	LSN   wal.LSN `json:"lsn,omitempty"`
}

type splitEntry struct {
	Step  string `json:"step"`
	Split string `json:"split"`
}

// baseEntry is what a job begins with that begins with a savepoint: a snapshot of its own, whose header has its positions.
type baseEntry struct {
	Snapshot  snapshotEntry `json:"snapshot"`
	Header    []byte        `json:"header"`
	Savepoint string        `json:"savepoint,omitempty"` // its name
}

// stepEntry is what a job's step keeps: tables, whose names hold the layout of what is in them, by keys of a type.
type stepEntry struct {
	ID     string   `json:"id"`
	Key    string   `json:"key,omitempty"` // "" where it is not known
	Tables []string `json:"tables"`
}

// inputEntry is a job's subscription.
type inputEntry struct {
	Step   string         `json:"step"`
	Topic  bus.TopicID    `json:"topic"`
	Sub    bus.SubID      `json:"sub"`
	Start  bus.Start      `json:"start"`
	States []bus.SubState `json:"states,omitempty"` // where it began
	At     wal.LSN        `json:"at,omitempty"`     // the frame that began it
	Replay string         `json:"replay,omitempty"` // the id of the replay that began it
	Base   string         `json:"base,omitempty"`   // the savepoint whose state the job began with then
	Fresh  bool           `json:"fresh,omitempty"`  // it began without state then
}

// outputEntry is a job's output: a topic of the bus, or a hidden one that a sender takes outside.
type outputEntry struct {
	Name    string      `json:"name"`
	Topic   bus.TopicID `json:"topic"`
	Outside bool        `json:"outside,omitempty"`
	Place   string      `json:"place,omitempty"` // what of the outside it is written to; another place is another output
	Sub     bus.SubID   `json:"sub,omitempty"`   // the sender's subscription, if Outside
	Sent    sentEntry   `json:"sent"`
}

// sentEntry is how far a sender has taken an output, and what its sink must know to go on.
type sentEntry struct {
	Sub   bus.SubID  `json:"sub"`
	LSN   wal.LSN    `json:"lsn"`  // of the epoch that holds the last record sent
	Next  bus.Offset `json:"next"` // index of the next record to send, over the whole life of the output
	State []byte     `json:"state,omitempty"`
}

// snapshotChange announces a snapshot that is durable.
type snapshotChange struct {
	Job      uint32        `json:"job"`
	Snapshot snapshotEntry `json:"snapshot"`
	Alone    bool          `json:"alone,omitempty"` // those before it are kept no more
}

type snapshotEntry struct {
	Epoch checkpoint.Epoch `json:"epoch"`
	LSN   wal.LSN          `json:"lsn"`
	File  string           `json:"file"` // within the job's folder
	Bytes int64            `json:"bytes"`
}

func (c *control) section() (wal.Section, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return wal.Section{}, fmt.Errorf("runtime: encoding a change: %w", err)
	}
	return wal.Section{Kind: sectionControl, Body: b}, nil
}

func decodeControl(body []byte) (*control, error) {
	c := new(control)
	if err := json.Unmarshal(body, c); err != nil {
		return nil, fmt.Errorf("runtime: a change in the log: %w", err)
	}
	return c, nil
}
