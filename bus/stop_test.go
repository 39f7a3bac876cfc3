package bus

import (
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/wal"
)

// TestStopMarks: a reader that stops where another stood takes of the marks behind the last record those that this one had, or
// all there are up to the next record. What it has not taken comes behind Go.
func TestStopMarks(t *testing.T) {
	for name, cfg := range map[string]Config{"from memory": {}, "from the log": {MemoryBytes: 1}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, cfg)
			r.define(1, TopicSpec{Name: "numbers"})
			st := r.subscribe(1, 1, Start{Earliest: true})
			r.epoch([]Publication{pub(1, 0, "a", "b")}, join(1), at(1, 10))
			first := r.epoch(nil, at(1, 20))
			none := r.epoch(nil)
			r.epoch(nil, at(1, 30))
			r.epoch([]Publication{pub(1, 0, "c", strings.Repeat("d", 2000))}, at(1, 40))
			r.epoch([]Publication{pub(1, 0, "e")})
			r.durable()
			for _, tt := range []struct {
				marks wal.LSN
				want  string
			}{{0, "30"}, {first - 1, "10"}, {first, "20"}, {none, "20"}, {none + 1, "30"}, {none + 3, "30"}} {
				rd := r.NewReader(1, 1, st, func() {})
				rd.StopAt(0, 2, tt.marks)
				out := drain(t, rd, 10)
				w, idle := rd.Watermark()
				if got := level(w, idle); got != tt.want || !rd.Stopped() || rd.States()[0].Next != 2 || tt.marks > 0 && rd.States()[0].Marks > max(tt.marks, none+1) {
					t.Errorf("marks up to %d: stopped %v at %+v with the watermark %s, want %s; read %q", tt.marks, rd.Stopped(), rd.States(), got, tt.want, out)
				}
				r.must(rd.Go(nil))
				out = drain(t, rd, 10)
				if w, _ := rd.Watermark(); w != 40 || rd.States()[0].Next != 5 || len(out) == 0 || tt.want != "30" && out[0] != "marks 30" && out[0] != "marks 20" {
					t.Errorf("marks up to %d: behind it %q, at %+v", tt.marks, out, rd.States())
				}
				r.must(rd.Close())
			}
		})
	}
}
