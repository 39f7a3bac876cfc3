package runtime

import (
	"encoding/json"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
)

// Broken twins of copies, and of what is saved of a job that rests.

var copyTwins = []simTwin{
	{name: "a copy begins anew in the next process", rules: []string{"R4", "R3", "R1", "error"}, // an error where the topic has let that go
		booted: copyAnew},
	{name: "a copy ends as any replay does, and reads on", rules: []string{"R1", "R3"},
		coreLog: changing(copyAsReplay)},
	{name: "a copy goes with the first record that is in the target", rules: []string{"R4"},
		sealed: copyShort},
	{name: "what is saved of a job at rest is from before it was changed", rules: []string{"savepoint", "snapshot", "R4"},
		staleRest: true},
}

// copyAnew puts each copy back to where it began.
func copyAnew(s *sim, rt *Runtime) {
	for _, j := range rt.committer.core.ledger.Jobs {
		m := s.model.jobs[j.ID]
		if mark, err := replaying(&j.header); err != nil || mark == nil || !mark.Copy || m == nil {
			continue
		}
		h := cloneHeader(j.header)
		for i := range h.Subs {
			st, err := bus.DecodeSubState(h.Subs[i].State)
			s.must(err)
			if st.Next > m.first[st.Partition] {
				st.Next = m.first[st.Partition]
				h.Subs[i].State = bus.AppendSubState(nil, st)
			}
		}
		j.header = h
	}
}

// copyAsReplay makes a copy's mark that of a replay.
func copyAsReplay(jc *jobChange) {
	mark, err := replaying(&checkpoint.Header{Extra: map[string][]byte{extraReplay: jc.Replay}})
	if err != nil || mark == nil || !mark.Copy {
		return
	}
	mark.Copy = false
	if jc.Replay, err = json.Marshal(mark); err != nil {
		panic(err)
	}
}

// copyShort lets a copy think that it goes no further than it is.
func copyShort(s *sim, c *core) {
	for _, j := range c.ledger.Jobs {
		mark, err := replaying(&j.header)
		if err != nil || mark == nil || !mark.Copy {
			continue
		}
		moved := false
		for i, end := range mark.Ends {
			if st, ok := placeOfSub(j, end.Sub, end.Partition); ok {
				moved = moved || st.Next < end.At
				mark.Ends[i].At = min(end.At, st.Next)
			}
		}
		if !moved || j.LSN == 0 {
			continue
		}
		j.header = cloneHeader(j.header)
		j.header.Extra[extraReplay], err = json.Marshal(mark)
		s.must(err)
	}
}
