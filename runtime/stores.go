package runtime

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// jobStores is a job's keyed state in memory: one store for each stateful step and subtask. It outlives attempts, which
// hand it on, and is what recovery fills. A state section's body is the step's id behind its length, then the entries.
type jobStores struct {
	widths map[string]int // subtasks of each step
	of     map[string][]*checkpoint.Store
	lost   map[string]int64 // bytes of state of steps that the job no longer has
	sealed checkpoint.Epoch // that the stores stand at
	drops  []dropEntry      // yet to be done, while the stores are restored
}

// newJobStores makes empty stores for a plan of a job; without one, they take the state of all steps there are.
func newJobStores(p *jobPlan, sealed checkpoint.Epoch) *jobStores {
	s := &jobStores{widths: map[string]int{}, of: map[string][]*checkpoint.Store{}, lost: map[string]int64{}, sealed: sealed}
	if p == nil {
		s.widths = nil
		return s
	}
	for _, t := range p.tasks {
		for _, n := range t.nodes {
			s.widths[n.ID] = t.width
		}
	}
	return s
}

// step returns the stores of a step's subtasks, or nil if the job has no such step.
func (s *jobStores) step(id string) ([]*checkpoint.Store, error) {
	if have := s.of[id]; have != nil {
		return have, nil
	}
	width := s.widths[id]
	if s.widths == nil {
		width = 1
	}
	stores := make([]*checkpoint.Store, width)
	for i := range stores {
		lo, hi := groupsOf(i, len(stores))
		st, err := checkpoint.NewStore(checkpoint.Config{Lo: lo, Hi: hi, Epoch: s.sealed + 1})
		if err != nil {
			return nil, err
		}
		stores[i] = st
	}
	if len(stores) > 0 {
		s.of[id] = stores
	}
	return stores, nil
}

// begin implements restorer: what stands in a snapshot at lsn is without what was dropped before.
func (s *jobStores) begin(lsn wal.LSN, drops []dropEntry) {
	s.drops = slices.DeleteFunc(slices.Clone(drops), func(d dropEntry) bool { return d.LSN <= lsn })
}

// passing implements restorer: what was dropped before lsn goes.
func (s *jobStores) passing(lsn wal.LSN) {
	n := 0
	for n < len(s.drops) && s.drops[n].LSN < lsn {
		s.drop(s.drops[n])
		n++
	}
	s.drops = s.drops[n:]
}

func (s *jobStores) drop(d dropEntry) {
	if d.Table == "" {
		delete(s.of, d.Step)
		delete(s.lost, d.Step)
		return
	}
	for _, st := range s.of[d.Step] {
		st.DropTable(d.Step, d.Table)
	}
}

// bodies returns all that is sealed, for a snapshot of a job that has no attempt under way.
func (s *jobStores) bodies() (out [][]byte) {
	for _, step := range slices.Sorted(maps.Keys(s.of)) {
		for _, st := range s.of[step] {
			sc := st.BeginSnapshot()
			for done := false; !done; {
				var chunk []byte
				if chunk, done = sc.Next(snapshotChunk); len(chunk) > 0 {
					out = append(out, appendStep(step, chunk))
				}
			}
		}
	}
	return out
}

// takeOver takes the state of a job whose attempts are over, as of its last sealed epoch, into stores for another plan of it,
// less what is dropped. The old ones are of no use any more.
func (s *jobStores) takeOver(old *jobStores, sealed checkpoint.Epoch, drops []dropEntry) error {
	old.handOver(sealed)
	for _, d := range drops {
		old.drop(d)
	}
	for step, stores := range old.of {
		if len(stores) == s.widths[step] {
			s.of[step] = stores
			continue
		}
		if s.widths[step] == 0 {
			continue
		}
		moved := &jobStores{of: map[string][]*checkpoint.Store{step: stores}}
		for _, body := range moved.bodies() {
			if err := s.applyState(body); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyState implements restorer: each store takes the key groups it owns.
func (s *jobStores) applyState(body []byte) error {
	step, entries, err := cutStep(body)
	if err != nil {
		return err
	}
	stores, err := s.step(step)
	if err != nil {
		return err
	}
	if len(stores) == 0 {
		s.lost[step] += int64(len(entries))
		return nil
	}
	for i, st := range stores {
		lo, hi := groupsOf(i, len(stores))
		if err := st.Apply(entries, lo, hi); err != nil {
			return fmt.Errorf("state of step %s: %w", step, err)
		}
	}
	return nil
}

// handOver ends the attempt that had the stores and prepares them for the next: what was sealed stays, the rest is undone.
func (s *jobStores) handOver(sealed checkpoint.Epoch) {
	s.sealed = sealed
	for _, stores := range s.of {
		for i, st := range stores {
			st.Fence()
			stores[i] = st.Successor(sealed)
		}
	}
}

func appendStep(step string, entries []byte) []byte {
	b := make([]byte, 0, len(step)+len(entries)+2)
	b = binary.AppendUvarint(b, uint64(len(step)))
	b = append(b, step...)
	return append(b, entries...)
}

func cutStep(body []byte) (step string, entries []byte, err error) {
	n, k := binary.Uvarint(body)
	if k <= 0 || k > 1 && body[k-1] == 0 || n > uint64(len(body)-k) {
		return "", nil, fmt.Errorf("runtime: a state section of %d bytes does not begin with its step", len(body))
	}
	return string(body[k : k+int(n)]), body[k+int(n):], nil
}

// recordScope implements jobs.RecordScope over the store of a node, which it may get later.
type recordScope struct {
	node *nodeInstance
	mark checkpoint.Mark
}

func (r *recordScope) BeginRecord() {
	if r.node.store != nil {
		r.node.store.BeginRecord()
		r.mark = r.node.store.Mark()
	}
}

func (r *recordScope) RollbackRecord() {
	if r.node.store != nil {
		r.node.store.Rollback(r.mark)
	}
}

func (r *recordScope) EndRecord() {
	if r.node.store != nil {
		r.node.store.EndRecord()
	}
}

var _ jobs.RecordScope = (*recordScope)(nil)
