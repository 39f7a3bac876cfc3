package runtime

import (
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
)

// TestRepairPassesWhatWasDropped: where the frame is removed that said why a generation could go, because the topic store had
// what a reader and a sender needed of it, the repair says what they lose, and they go on behind it.
func TestRepairPassesWhatWasDropped(t *testing.T) {
	k := &keptLog{ledger: newLedger(), bus: bus.New(bus.Config{}, nil), seen: newSeenFrames()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := bus.SubState{Position: bus.Position{Next: 1, Marks: 2}, Watermark: bus.NoWatermark}
	j := &jobEntry{ID: 5, Name: "j", Phase: PhaseActive, Inputs: []inputEntry{{Step: "s", Topic: 7, Sub: 8}},
		Outputs: []outputEntry{{Name: "main", Topic: 9, Outside: true, Sub: 10, Sent: sentEntry{Sub: 10, LSN: 2, Next: 1}}}}
	j.header.Subs = []checkpoint.SubPosition{{Sub: 8, State: bus.AppendSubState(nil, at)}}
	k.ledger.Jobs[5] = j
	must(k.bus.Define(7, bus.TopicSpec{Name: "a"}))
	must(k.bus.Define(9, bus.TopicSpec{Name: "j/main"}))
	for sub, topic := range map[bus.SubID]bus.TopicID{8: 7, 10: 9} {
		_, err := k.bus.Subscribe(sub, "", topic, bus.Start{Earliest: true})
		must(err)
	}
	k.bus.Generation(1)
	k.bus.Replay(2, []bus.Publication{{Topic: 7, Count: 3, Bytes: 3}, {Topic: 9, Count: 4, Bytes: 4}}, nil)
	k.bus.Generation(10)
	k.choice.First = 10
	k.bus.Dropped(10)
	must(k.passBefore())
	k.describe()
	if u := k.say.Unread; len(u) != 1 || u[0].Records != 2 || k.say.Frees {
		t.Errorf("unread: %+v, nothing lost: %v", u, k.say.Frees)
	}
	if o := k.say.Outputs; len(o) != 1 || o[0].Unsent != 3 || j.Outputs[0].Sent.Next != 4 {
		t.Errorf("unsent: %+v, the sender stands at %s", o, j.Outputs[0].Sent.Next)
	}
	st, err := bus.DecodeSubState(j.header.Subs[0].State)
	if must(err); st.Next != 3 {
		t.Errorf("the reader stands at %s", st.Next)
	}
}
