package bus

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/wal"
)

// Offset is a record's place in its partition, dense from 0. Once durable it never names another record.
type Offset uint64

// String formats o as a decimal number.
func (o Offset) String() string { return strconv.FormatUint(uint64(o), 10) }

// TopicID, SubID and ProducerID number topics, subscriptions and the jobs that write; the caller gives them out and uses
// none twice.
type (
	TopicID    uint32
	SubID      uint32
	ProducerID uint32
)

// Kinds of the bus's sections in a frame.
const (
	SectionRecords uint8 = 0x10
	SectionIndex   uint8 = 0x11
)

// NoTime stands for a record without event time, NoWatermark for a producer that has given none.
const (
	NoTime      int64 = math.MinInt64
	NoWatermark int64 = math.MinInt64
)

// KeepNothing, as Retention.MaxBytes, keeps a record only until every subscription has passed it.
const KeepNothing int64 = -1

const (
	defaultRetention = 1 << 30
	defaultLimit     = 1 << 30
	partitionsMax    = 128 // one key group each at least
)

// OnFull is what a topic does when a subscription has fallen behind by its limit.
type OnFull string

// Block holds the topic's writers back, between their epochs. It is the default.
// DropOldest lets go of the oldest that the subscription has not read: for it alone (see DropsDue).
const (
	Block      OnFull = "block"
	DropOldest OnFull = "drop_oldest"
)

// Retention is how long records stay that every subscription has passed: until either bound is reached. Records go by whole
// generations of the log, or segments of the topic store, when all of one's may, so that some stay longer than they must.
type Retention struct {
	MaxBytes int64         `json:"max_bytes,omitempty"` // or KeepNothing; 0 means 1 GiB, without a bound where MaxAge is said
	MaxAge   time.Duration `json:"max_age,omitempty"`   // by the clock, since they were written; 0 means any
}

// TopicSpec describes a topic. A zero field is not said: it is taken from another definition, or by default.
type TopicSpec struct {
	Name       string    `json:"name"`
	Partitions int       `json:"partitions,omitempty"` // 0 means 1
	Retention  Retention `json:"retention"`
	Limit      int64     `json:"limit,omitempty"` // bytes; 0 means 1 GiB
	OnFull     OnFull    `json:"on_full,omitempty"`

	RetentionSet bool `json:"retention_set,omitempty"` // by an operator: what definitions say of it does not count
}

// Merge joins two descriptions of one topic. A property said twice and differently is an error.
func (s TopicSpec) Merge(o TopicSpec) (TopicSpec, error) {
	if s.Name != o.Name {
		return s, fmt.Errorf("bus: topics %q and %q are not the same", s.Name, o.Name)
	}
	var err error
	note := func(what string, a, b any) {
		if err == nil {
			err = &ConflictError{Topic: s.Name, Field: what, Have: a, Say: b}
		}
	}
	if s.RetentionSet {
		o.Retention = Retention{}
	} else if o.RetentionSet {
		s.Retention, s.RetentionSet, o.Retention = o.Retention, true, Retention{}
	}
	merge(&s.Partitions, o.Partitions, "partitions", note)
	merge(&s.Retention.MaxBytes, o.Retention.MaxBytes, "retention.max_bytes", note)
	merge(&s.Retention.MaxAge, o.Retention.MaxAge, "retention.max_age", note)
	merge(&s.Limit, o.Limit, "limit", note)
	merge(&s.OnFull, o.OnFull, "on_full", note)
	return s, err
}

// ConflictError is of a property of a topic that is said twice and differently.
type ConflictError struct {
	Topic     string
	Field     string // as definitions have it: retention.max_bytes
	Have, Say any
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("bus: topic %s: %s is %v in one definition and %v in another", e.Topic, e.Field, e.Have, e.Say)
}

func merge[T comparable](have *T, say T, what string, note func(string, any, any)) {
	var zero T
	switch {
	case say == zero || *have == say:
	case *have == zero:
		*have = say
	default:
		note(what, *have, say)
	}
}

// Check returns what is wrong with s.
func (s TopicSpec) Check() error {
	switch {
	case s.Name == "":
		return fmt.Errorf("bus: a topic needs a name")
	case s.Partitions < 0 || s.Partitions > partitionsMax:
		return fmt.Errorf("bus: topic %s: %d partitions; 1 to %d are possible", s.Name, s.Partitions, partitionsMax)
	case s.Limit < 0 || s.Retention.MaxBytes < KeepNothing || s.Retention.MaxAge < 0:
		return fmt.Errorf("bus: topic %s: limit and retention cannot be negative", s.Name)
	case s.OnFull != "" && s.OnFull != Block && s.OnFull != DropOldest:
		return fmt.Errorf("bus: topic %s: on_full %q is not known; %q and %q are", s.Name, s.OnFull, Block, DropOldest)
	}
	return nil
}

// Private reports whether a topic is its writer's alone, an output on its way outside: its name has a slash, which no name that
// people give has. Nobody sets how it keeps its records.
func (s TopicSpec) Private() bool { return strings.Contains(s.Name, "/") }

func (s TopicSpec) partitions() int { return max(1, s.Partitions) }

func (s TopicSpec) limit() int64 {
	if s.Limit == 0 {
		return defaultLimit
	}
	return s.Limit
}

func (s TopicSpec) onFull() OnFull {
	if s.OnFull == "" {
		return Block
	}
	return s.OnFull
}

func (s TopicSpec) keep() int64 {
	switch s.Retention.MaxBytes {
	case 0:
		if s.Retention.MaxAge > 0 {
			return math.MaxInt64
		}
		return defaultRetention
	case KeepNothing:
		return 0
	}
	return s.Retention.MaxBytes
}

// Publication is an epoch's records for one partition, from one writer.
type Publication struct {
	Topic     TopicID
	Partition int
	Count     int
	Data      []byte // encoded by a Builder; shared from now on
	Bytes     int64  // len(Data), where Data is not at hand
	Payload   any    // the values of the records, in order, for readers in this process; may be nil
	Latest    int64  // the highest event time, NoTime without any; where it is 0, Assign finds it
	Base      Offset // set by Assign
	Part      wal.LSN
	Section   int // of the frame Part, or of the epoch's last frame if Part is 0
}

// size returns the bytes of the publication's section.
func (p *Publication) size() int64 {
	if p.Data != nil {
		return int64(len(p.Data))
	}
	return p.Bytes
}

// Mark is what an epoch, or a change of jobs, tells the readers of a topic about one producer.
// One that joins, leaves or becomes idle gives no watermark, and the final one is never given: Watermark is then ignored.
type Mark struct {
	Topic     TopicID
	Producer  ProducerID
	Watermark int64 // NoWatermark: not said
	Idle      bool
	Join      bool
	Leave     bool
}

// Position is a place in a partition.
type Position struct {
	Next  Offset  `json:"next"`
	Marks wal.LSN `json:"marks"` // what frames up to here say of producers is in the table
}

// ProducerMark is a line of the table of producers.
type ProducerMark struct {
	Producer  ProducerID `json:"producer"`
	Watermark int64      `json:"watermark"` // NoWatermark: none yet
	Idle      bool       `json:"idle,omitempty"`
}

// SubState is a subscription's place in one partition, with the table of producers as of there. Watermark and Idle are what
// the reader had come to.
type SubState struct {
	Partition int `json:"partition"`
	Position
	Table     []ProducerMark `json:"table,omitempty"`
	Watermark int64          `json:"watermark"`
	Idle      bool           `json:"idle,omitempty"`
	Dropped   uint64         `json:"dropped,omitempty"` // records that it lost to OnFull DropOldest, over its whole life
	Lost      []Lost         `json:"lost,omitempty"`    // the newest ranges of these, oldest first; never changed in place
}

// Start is where a new subscription begins: Earliest is the oldest record still there, Latest behind the newest, ByTime at
// the first record whose event time is at or behind Time (see Resolve), Offsets one for each partition, else At in every one.
type Start struct {
	Earliest bool     `json:"earliest,omitempty"`
	Latest   bool     `json:"latest,omitempty"`
	ByTime   bool     `json:"by_time,omitempty"`
	Time     int64    `json:"time,omitempty"` // event time, Unix ms
	Offsets  []Offset `json:"offsets,omitempty"`
	At       Offset   `json:"at,omitempty"`
}

// Pin is the oldest frame that somebody still needs.
type Pin struct {
	Who          string
	LSN          wal.LSN
	Topic        TopicID
	Subscription SubID // 0: the topic's retention
}

// OffsetError says that an offset is not there: it was let go, or it has not been given yet.
type OffsetError struct {
	Topic       string
	Partition   int
	Offset      Offset
	First, Next Offset // what there is: First up to, without, Next
}

func (e *OffsetError) Error() string {
	if e.First == e.Next {
		return fmt.Sprintf("bus: topic %s, partition %d: offset %s is not there; the next record gets %s: start from it, from earliest or latest",
			e.Topic, e.Partition, e.Offset, e.Next)
	}
	return fmt.Sprintf("bus: topic %s, partition %d: offset %s is not there; there are %s to %s: start from one of these, from earliest or latest",
		e.Topic, e.Partition, e.Offset, e.First, e.Next-1)
}

// Log is what the bus reads cold records from.
type Log interface {
	// Reader returns a cursor that begins at from.
	Reader(from wal.LSN) (LogReader, error)
}

// LogReader walks over durable frames. Next returns io.EOF where no more is durable yet, and goes on later.
type LogReader interface {
	Next() (Frame, error)
	Seek(wal.LSN) error
	Close() error
}

// Frame is one frame of the log; it is valid until the next call of its reader.
type Frame interface {
	LSN() wal.LSN
	Len() int
	Section(i int) wal.SectionInfo
	Body(i int) ([]byte, error) // checked; the caller may keep it
}
