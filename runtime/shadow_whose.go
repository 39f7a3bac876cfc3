package runtime

import (
	"errors"
	"fmt"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// A record does not say whose it is. The frame that published it does: it is one of its job's epochs. So as long as the log goes
// back to where a range begins, what others have written to the topic, those that have gone by now too, is told from what the job
// gave; where it does not, a topic that others write is not compared.
//
// What a job sends outside is in the log too, in a hidden topic that keeps nothing of its own: it is there as long as the log is.

// inLog reports whether the log still has all frames behind the range's beginning.
func (s *shadow) inLog() bool {
	gens := s.rt.log.Generations()
	return len(gens) > 0 && gens[0].First <= s.begin.lsn+1
}

// notCompared says why what the job gave to an output cannot be compared; "" where it can.
func (s *shadow) notCompared(o *shadowOut) (string, error) {
	if other := s.shared[o.id]; other != "" && !s.inLog() {
		return fmt.Sprintf("job %s writes this topic too, and the log no longer goes back to the range's beginning, which would say whose a record is; a range that begins later may do", other), nil
	}
	for p := range s.ends[o.id] {
		lost, err := s.lost(o.id, p)
		if err != nil {
			return "", err
		}
		if lost > 0 {
			return fmt.Sprintf("what the job gave before record %s of partition %d is no longer kept; a range that begins later may do", lost, p), nil
		}
	}
	return "", nil
}

// lost returns the first record that is there, where some that were written in the range may lie before it; else 0.
func (s *shadow) lost(id bus.TopicID, p int) (bus.Offset, error) {
	first := s.rt.bus.First(id, p)
	if first == 0 || s.inLog() {
		return 0, nil // a log that goes back so far has its records
	}
	st, err := s.rt.bus.Browse(id, p, bus.Start{Earliest: true})
	if err != nil {
		return 0, err
	}
	r := s.rt.bus.NewReader(0, id, []bus.SubState{st}, func() {})
	defer r.Close()
	for {
		b, ok, err := r.Next(1)
		switch {
		case err != nil || !ok:
			return first, err
		case b.Len() > 0 && b.LSN <= s.begin.lsn:
			return 0, nil
		case b.Len() > 0:
			return first, nil
		}
	}
}

// frameOwners says of which job's epochs frames are.
type frameOwners struct {
	frames frames
	reader bus.LogReader
	lsn    wal.LSN // that was asked for last
	job    uint32
}

func (o *frameOwners) of(lsn wal.LSN) (job uint32, err error) {
	if lsn == o.lsn {
		return o.job, nil
	}
	if o.reader == nil {
		o.reader, err = o.frames.Reader(lsn)
	} else {
		err = o.reader.Seek(lsn)
	}
	if err != nil {
		return 0, o.gone(err)
	}
	f, err := o.reader.Next()
	if err != nil {
		return 0, o.gone(err)
	}
	for i := range f.Len() {
		if info := f.Section(i); info.Kind == checkpoint.SectionHeader {
			o.lsn, o.job = lsn, info.Owner
			return o.job, nil
		}
	}
	return 0, fmt.Errorf("runtime: records say that they are of frame %d, which is no epoch", lsn)
}

func (o *frameOwners) gone(err error) error {
	if errors.Is(err, wal.ErrGone) {
		return fmt.Errorf("the log was cut while it was read: run it again, with a range that begins later: %w", err)
	}
	return err
}

func (o *frameOwners) close() error {
	if o.reader == nil {
		return nil
	}
	return o.reader.Close()
}
