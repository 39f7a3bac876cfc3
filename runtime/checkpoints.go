package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// Checkpoint is a file with a job's whole state at an epoch.
type Checkpoint struct {
	Name      string           `json:"name"` // JOB/EPOCH, or a savepoint's
	Job       string           `json:"job"`
	Kind      string           `json:"kind"` // snapshot, savepoint
	Epoch     checkpoint.Epoch `json:"epoch"`
	LSN       wal.LSN          `json:"lsn"`
	Bytes     int64            `json:"bytes"`
	Written   time.Time        `json:"written"`
	Announced bool             `json:"announced"` // the log knows it: recovery may need it
	Path      string           `json:"path"`
}

// ErrNoCheckpoint is the error for one that is not there.
var ErrNoCheckpoint = errors.New("there is no such checkpoint")

// ErrNeeded refuses to delete what recovery may need.
var ErrNeeded = errors.New("recovery may need it")

// Checkpoints lists what there is in a data directory, by job, the newest of each first, and then the savepoints by name. A process may have the directory open.
// Of a log that is damaged nothing is asked: jobs have numbers for names then, and broken says why.
func Checkpoints(dataDir string) (list []Checkpoint, broken error, err error) {
	files, err := checkpoint.ListSnapshots(filepath.Join(dataDir, "snapshots"))
	if err != nil {
		return nil, nil, err
	}
	l := newLedger()
	o, broken := OpenOffline(dataDir)
	if broken == nil {
		l = o.ledger
	}
	for _, f := range files {
		c := Checkpoint{Job: "job-" + strconv.Itoa(int(f.Job)), Kind: "snapshot", Epoch: f.Epoch, Bytes: f.Bytes, Path: f.Path}
		if j := l.Jobs[f.Job]; j != nil {
			c.Job = j.Name
			for _, s := range j.Snapshots {
				if s.File == filepath.Base(f.Path) {
					c.LSN, c.Announced = s.LSN, true
				}
			}
		}
		c.Name = c.Job + "/" + c.Epoch.String()
		if info, err := os.Stat(f.Path); err == nil {
			c.Written = info.ModTime().UTC()
		}
		list = append(list, c)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Savepoints)) {
		s := l.Savepoints[name]
		list = append(list, Checkpoint{Name: name, Job: s.Job, Kind: "savepoint", Epoch: s.Epoch, LSN: s.LSN, Bytes: s.Bytes,
			Written: time.UnixMilli(s.At).UTC(), Announced: true, Path: snapshotDir(filepath.Join(dataDir, "snapshots")).savepoint(name)})
	}
	return list, broken, nil
}

// FindCheckpoint returns the one of a name, JOB/EPOCH or a savepoint's, or of JOB alone its newest snapshot. A path names a file, wherever it is.
func FindCheckpoint(dataDir, name string) (Checkpoint, error) {
	list, broken, err := Checkpoints(dataDir)
	if err != nil {
		return Checkpoint{}, err
	}
	info, statErr := os.Stat(name)
	for _, c := range list {
		if c.Name == name || c.Job == name && c.Kind == "snapshot" || filepath.Base(c.Path) == name {
			return c, nil
		}
		if of, err := os.Stat(c.Path); err == nil && statErr == nil && os.SameFile(of, info) {
			return c, nil
		}
	}
	if statErr == nil && info.Mode().IsRegular() {
		return Checkpoint{Name: name, Kind: "file", Bytes: info.Size(), Written: info.ModTime().UTC(), Path: name}, nil
	}
	if broken != nil {
		return Checkpoint{}, fmt.Errorf("%w: %q; the log cannot be read, so jobs have numbers for names (%w)", ErrNoCheckpoint, name, broken)
	}
	return Checkpoint{}, fmt.Errorf("%w: %q", ErrNoCheckpoint, name)
}

// CheckpointDetail is what a checkpoint holds.
type CheckpointDetail struct {
	Checkpoint
	LogID      string        `json:"log_id"`
	Splits     []SplitDetail `json:"splits"`
	Inputs     []InputDetail `json:"inputs"`
	Watermarks []MarkDetail  `json:"watermarks"`
	Tables     []TableDetail `json:"tables"`
	Entries    int64         `json:"entries"`
	StateBytes int64         `json:"state_bytes"` // of keys and values
}

// SplitDetail is how far a source had read a split.
type SplitDetail struct {
	Step      string     `json:"step"`
	Split     string     `json:"split"`
	Position  []byte     `json:"position"` // the source's own
	Watermark *time.Time `json:"watermark,omitempty"`
	Idle      bool       `json:"idle,omitempty"`
	Ended     bool       `json:"ended,omitempty"`
}

// InputDetail is how far a subscription had read a partition.
type InputDetail struct {
	Subscription uint32     `json:"subscription"`
	Partition    int        `json:"partition"`
	Next         bus.Offset `json:"next"`
	Watermark    *time.Time `json:"watermark,omitempty"`
}

// MarkDetail is a step's watermark.
type MarkDetail struct {
	Step      string     `json:"step"`
	Watermark *time.Time `json:"watermark,omitempty"` // missing: none yet, or the end
}

// TableDetail is one table of a step's state.
type TableDetail struct {
	Step    string `json:"step"`
	Table   string `json:"table"`
	Entries int64  `json:"entries"`
	Bytes   int64  `json:"bytes"`
}

// StateEntry is one entry of a job's state, for people and programs. What is no JSON is text in base64.
type StateEntry struct {
	Step   string          `json:"step"`
	Table  string          `json:"table"`
	Space  int64           `json:"space"` // of a window: its start, in Unix ms
	Key    json.RawMessage `json:"key"`
	Sub    json.RawMessage `json:"sub,omitempty"`
	Value  json.RawMessage `json:"value"`
	Base64 bool            `json:"base64,omitempty"` // of sub and value, where they are none
}

// Inspect reads and checks the whole of a checkpoint.
func Inspect(c Checkpoint) (*CheckpointDetail, error) {
	d := &CheckpointDetail{Checkpoint: c, Splits: []SplitDetail{}, Inputs: []InputDetail{}, Watermarks: []MarkDetail{}, Tables: []TableDetail{}}
	type table struct{ step, name string }
	tables := map[table]*TableDetail{}
	meta, err := stateOf(c.Path, func(e checkpoint.Entry) error {
		k := table{e.Step, e.Table}
		t := tables[k]
		if t == nil {
			t = &TableDetail{Step: e.Step, Table: e.Table}
			tables[k] = t
		}
		n := int64(len(e.Key) + len(e.Sub) + len(e.Value))
		t.Entries++
		t.Bytes += n
		d.Entries++
		d.StateBytes += n
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, k := range slices.SortedFunc(maps.Keys(tables), func(a, b table) int {
		return strings.Compare(a.step+"\x00"+a.name, b.step+"\x00"+b.name)
	}) {
		d.Tables = append(d.Tables, *tables[k])
	}
	d.Epoch, d.LSN, d.LogID = meta.Epoch, meta.LSN, fmt.Sprintf("%x", meta.LogID)
	for _, s := range meta.Header.Splits {
		d.Splits = append(d.Splits, SplitDetail{Step: s.Step, Split: s.Split, Position: s.Position, Watermark: markTime(s.Watermark), Idle: s.Idle, Ended: s.Ended})
	}
	for _, s := range meta.Header.Subs {
		st, err := bus.DecodeSubState(s.State)
		if err != nil {
			return nil, err
		}
		d.Inputs = append(d.Inputs, InputDetail{Subscription: s.Sub, Partition: s.Partition, Next: st.Next, Watermark: markTime(st.Watermark)})
	}
	for _, s := range meta.Header.Steps {
		d.Watermarks = append(d.Watermarks, MarkDetail{Step: s.Step, Watermark: markTime(s.Watermark)})
	}
	return d, nil
}

// markTime is a watermark as a time; nil for none and for the end.
func markTime(ms int64) *time.Time {
	const limit = 253402300799999 // the last millisecond of year 9999
	if ms < -limit || ms > limit {
		return nil
	}
	t := time.UnixMilli(ms).UTC()
	return &t
}

// Export calls fn with every entry of a checkpoint's state, of one step if it is named.
func Export(c Checkpoint, step string, fn func(StateEntry) error) error {
	_, err := stateOf(c.Path, func(e checkpoint.Entry) error {
		if step != "" && e.Step != step {
			return nil
		}
		out := StateEntry{Step: e.Step, Table: e.Table, Space: e.Space}
		out.Key, _ = asJSON(e.Key)
		var a, b bool
		if e.Sub != nil {
			out.Sub, a = asJSON(e.Sub)
		}
		out.Value, b = asJSON(e.Value)
		out.Base64 = a || b
		return fn(out)
	})
	return err
}

// stateOf reads and checks a whole file, folds what it holds, and calls fn with each entry.
func stateOf(path string, fn func(checkpoint.Entry) error) (checkpoint.SnapshotMeta, error) {
	r, err := checkpoint.OpenSnapshot(path)
	if err != nil {
		return checkpoint.SnapshotMeta{}, err
	}
	defer r.Close()
	stores := map[string]*checkpoint.Store{}
	for {
		body, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return r.Meta(), err
		}
		step, entries, err := cutStep(body)
		if err != nil {
			return r.Meta(), err
		}
		if stores[step] == nil {
			if stores[step], err = checkpoint.NewStore(checkpoint.Config{Lo: 0, Hi: checkpoint.KeyGroups, Epoch: r.Meta().Epoch + 1}); err != nil {
				return r.Meta(), err
			}
		}
		if err := stores[step].Apply(entries, 0, checkpoint.KeyGroups); err != nil {
			return r.Meta(), fmt.Errorf("state of step %s: %w", step, err)
		}
	}
	for _, step := range slices.Sorted(maps.Keys(stores)) {
		for scan, done := stores[step].BeginSnapshot(), false; !done; {
			var chunk []byte
			if chunk, done = scan.Next(snapshotChunk); len(chunk) == 0 {
				continue
			}
			err := checkpoint.Entries(chunk, func(e checkpoint.Entry) error {
				e.Step = step
				return fn(e)
			})
			if err != nil {
				return r.Meta(), err
			}
		}
	}
	return r.Meta(), nil
}

// DeleteCheckpoint removes a file that recovery does not need. It takes the lock of the directory.
func DeleteCheckpoint(dataDir, name string) (c Checkpoint, err error) {
	lock, err := wal.Lock(filepath.Join(dataDir, "wal"))
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if c, err = FindCheckpoint(dataDir, name); err != nil {
		return c, err
	}
	if _, broken, _ := Checkpoints(dataDir); broken != nil {
		return c, fmt.Errorf("%w: the log that would tell cannot be read: %w", ErrNeeded, broken)
	}
	if c.Kind == "savepoint" {
		return c, fmt.Errorf("%s is a savepoint, which the process deletes: job savepoints delete %s", name, name)
	}
	if c.Announced || c.Kind != "snapshot" {
		return c, fmt.Errorf("%w: %s", ErrNeeded, c.Name)
	}
	return c, os.Remove(c.Path)
}
