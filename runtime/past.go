package runtime

import (
	"slices"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// A job reads a topic in stretches: from one place on until a replay, a seek or another definition sets it elsewhere. What it
// gave of a record it gave in the last stretch that read it, so a shadow run must know them (shadow_parts.go). They are part of
// the ledger, as long as the job is, and claim nothing.

// pastMax is how many stretches are kept of a job that are over.
const pastMax = 8

// pastEntry is a stretch that is over.
type pastEntry struct {
	inputEntry
	Until wal.LSN        `json:"until"` // the frame that ended it
	Ended []bus.SubState `json:"ended"` // where it stood then; Marks 0 is before the record at Next
}

// reading returns the stretches that the job is at, as if a frame ended them.
func (j *jobEntry) reading(lsn wal.LSN) (out []pastEntry) {
	for _, in := range j.Inputs {
		p := pastEntry{inputEntry: in, Until: lsn, Ended: slices.Clone(in.States)}
		for i, st := range p.Ended {
			if now, ok := placeOfSub(j, in.Sub, st.Partition); ok {
				p.Ended[i] = now
			}
		}
		out = append(out, p)
	}
	return out
}

// endStretches notes those of was whose subscription the job no longer has.
func (j *jobEntry) endStretches(was []pastEntry) {
	for _, p := range was {
		if !slices.ContainsFunc(j.Inputs, func(in inputEntry) bool { return in.Sub == p.Sub }) {
			j.passed(p)
		}
	}
}

func (j *jobEntry) passed(p pastEntry) {
	if p.At == 0 {
		return
	}
	j.Past = append(slices.Clone(j.Past), p)
	if n := len(j.Past) - pastMax; n > 0 {
		j.Past, j.PastGone = j.Past[n:], true
	}
}

// bringBack gives the job back the inputs that it had before a change: those that it still has go on as they are, those that it
// had given up begin another stretch at lsn, where they had stood.
func (j *jobEntry) bringBack(inputs []inputEntry, lsn wal.LSN) {
	now := j.Inputs
	j.Inputs = slices.Clone(inputs)
	for i := range j.Inputs {
		in := &j.Inputs[i]
		if k := slices.IndexFunc(now, func(n inputEntry) bool { return n.Sub == in.Sub }); k >= 0 {
			*in = now[k]
			continue
		}
		for _, p := range slices.Backward(j.Past) {
			if p.Sub == in.Sub {
				in.At, in.States, in.Replay, in.Base, in.Fresh = lsn, p.Ended, "", "", false
				break
			}
		}
	}
}

// stretchBegins says how the stretch of an input begins that a change makes at lsn.
func (j *jobEntry) stretchBegins(lsn wal.LSN, in *inputEntry, c jobChange) error {
	in.At, in.Replay, in.Base, in.Fresh = lsn, "", "", j.Since == lsn && c.Base == nil
	if c.Base != nil {
		in.Base = c.Base.Savepoint
	}
	if c.Replay == nil {
		return nil
	}
	mark, err := replaying(&checkpoint.Header{Extra: map[string][]byte{extraReplay: c.Replay}})
	if err == nil {
		in.Replay = mark.ID
	}
	return err
}

// endReplay notes, before the epoch at lsn is folded whose header h is, that with it a replay is over behind which the job goes
// on elsewhere.
func (j *jobEntry) endReplay(lsn wal.LSN, h *checkpoint.Header) error {
	if v, said := h.Extra[extraReplay]; !said || len(v) > 0 {
		return nil
	}
	mark, err := replaying(&j.header)
	if err != nil || mark == nil {
		return err
	}
	now := &jobEntry{Inputs: j.Inputs, header: checkpoint.Header{Subs: slices.Clone(j.header.Subs)}}
	checkpoint.Merge(&now.header, checkpoint.Header{Subs: h.Subs})
	j.Inputs = slices.Clone(j.Inputs)
	for i, p := range now.reading(lsn) {
		in, jumps := &j.Inputs[i], false
		states := slices.Clone(p.Ended)
		for k := range p.Ended {
			for _, end := range mark.Ends {
				if end.Sub == in.Sub && end.Partition == p.Ended[k].Partition && end.Then != nil {
					p.Ended[k], jumps = bus.SubState{Partition: end.Partition, Position: bus.Position{Next: end.At}, Watermark: bus.NoWatermark}, true
				}
			}
		}
		if jumps {
			j.passed(p)
			in.At, in.States, in.Replay, in.Base, in.Fresh = lsn, states, "", "", false
		}
	}
	return nil
}
