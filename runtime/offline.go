package runtime

import (
	"context"
	"path/filepath"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/wal"
)

// Offline is a data directory read without its lock, as its log stood when it was opened. Nothing in it is changed, and a
// process may have it open.
type Offline struct {
	view   *wal.View
	bus    *bus.Bus
	ledger *ledger
}

// OpenOffline reads what the log of a data directory says.
func OpenOffline(dataDir string) (*Offline, error) {
	view, err := wal.OpenView(filepath.Join(dataDir, "wal"))
	if err != nil {
		return nil, err
	}
	o := &Offline{view: view, bus: bus.New(bus.Config{Store: bus.StoreConfig{Dir: storeDir(dataDir)}}, viewFrames{view}), ledger: newLedger()}
	if at := view.Description().Catalog; at > 0 {
		if o.ledger, err = recoverLedger(viewFrames{view}, at, o.bus); err != nil {
			return nil, err
		}
	}
	return o, o.bus.OpenStore(false)
}

// storeDir is where in a data directory the topic store lies.
func storeDir(dataDir string) string { return filepath.Join(dataDir, "topics") }

// Topics returns how every topic stands.
func (o *Offline) Topics() []bus.TopicStat { return o.bus.Stats() }

// Sent returns how many records of a job's output were taken outside, by what the log says: what was sent since is sent
// again. It is 0 for an output that the log does not know.
func (o *Offline) Sent(job, output string) bus.Offset {
	if j := o.ledger.job(job); j != nil {
		for _, out := range j.Outputs {
			if out.Outside && out.Name == output {
				return out.Sent.Next
			}
		}
	}
	return 0
}

// Tail is Runtime.Tail of what is there.
func (o *Offline) Tail(ctx context.Context, q Tail, f func(TopicRecord) error) error {
	q.Follow = false
	return tail(ctx, o.bus, q, func(wal.LSN) error { return nil }, f)
}

// viewFrames makes a view of a log readable for the bus and for recovery.
type viewFrames struct{ view *wal.View }

func (v viewFrames) Reader(from wal.LSN) (bus.LogReader, error) {
	r, err := v.view.Reader(from)
	if err != nil {
		return nil, err
	}
	return walReader{r}, nil
}
