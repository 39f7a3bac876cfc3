package killtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// Replayer lets its job read the topic again from the beginning, with no state, whenever it is at the topic's end: each replay is
// there as a whole, or not at all, its records say of which replay they are, and it counts what was counted before.
func Replayer(r *Round) Actor { return &replayer{mover: newMover(r, "replays")} }

type replayer struct {
	mover
	done, inside int
}

func (y *replayer) Act(ctx context.Context, p *served) error {
	pause(y.rng, 100*time.Millisecond)
	err := until(ctx, "job "+y.name+" is at the end", func() (bool, error) { // also behind a replay that a kill fell into
		st, ok, err := p.subscription(numbersTopic, y.name)
		return ok && st.Lag < 500, err
	})
	if err != nil {
		return err
	}
	j := y.jump(jump{from: -1, replay: true})
	y.inside++
	op, err := p.client.Replay(ctx, y.name, admin.ReplayRequest{Topic: numbersTopic, From: "earliest", Nothing: true})
	if err == nil {
		op, err = p.client.Await(ctx, op, func(admin.Operation) {})
	}
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	in := op.Replay.Inputs
	if len(in) != 1 || len(in[0].From) != 1 || in[0].From[0] != 0 || op.Replay.ID == "" {
		return fmt.Errorf("%w: a replay from the beginning says %+v", errWrong, op.Replay)
	}
	j.sure, j.id, j.from = true, op.Replay.ID, int64(in[0].To[0])
	y.done++
	y.inside--
	return nil
}

func (y *replayer) Compare(*served) error { return nil }

func (y *replayer) Check(tb testing.TB, w *Work) {
	tb.Helper()
	y.mover.Check(tb, w)
	got, want := w.windows(tb, y.name)
	checkWindows(tb, y.name, got[""], want, true)
	for id, wins := range got {
		if id != "" {
			checkWindows(tb, y.name+" in replay "+id, wins, want, false)
		}
	}
}

// checkWindows sees that each window was given once, with all that is in it: every one, or the first ones.
func checkWindows(tb testing.TB, who string, got map[string][]int, want map[string]int, all bool) {
	tb.Helper()
	missing := ""
	var starts []string
	for start := range want {
		starts = append(starts, start)
	}
	slices.Sort(starts)
	for _, start := range starts {
		n := got[start]
		switch {
		case len(n) == 0 && missing == "":
			missing = start
		case len(n) == 0:
		case missing != "":
			tb.Errorf("%s: there is a window of %s and none of %s", who, start, missing)
			return
		case len(n) != 1 || n[0] != want[start]:
			tb.Errorf("%s: the window of %s has %v records; want %d, once", who, start, n, want[start])
			return
		}
	}
	if all && missing != "" || len(got) > len(want) {
		tb.Errorf("%s: %d windows, and there should be %d; missing is %q", who, len(got), len(want), missing)
	}
}

func (y *replayer) Counts() string {
	return fmt.Sprintf("%d replays; %d more that a kill fell into", y.done, y.inside)
}

// Copier copies ranges of the topic to others: each copy is whole, in order, or not there.
func Copier(r *Round) Actor { return &copier{rng: r.random()} }

type copier struct {
	rng     *rand.Rand
	copies  []*copied
	pending *copied
}

type copied struct {
	topic    string
	from, to bus.Offset
	sure     bool
}

func (c *copier) Begin(*served) error { return nil }

func (c *copier) Act(ctx context.Context, p *served) error {
	pause(c.rng, 60*time.Millisecond)
	t, err := p.topic(numbersTopic)
	if err != nil {
		return err
	}
	next := int64(t.Partitions[0].Next)
	if next == 0 {
		return nil
	}
	k := &copied{topic: fmt.Sprintf("copy-%d", len(c.copies)), from: bus.Offset(c.rng.Int64N(next)), to: bus.Offset(next)}
	c.copies, c.pending = append(c.copies, k), k
	op, err := p.client.ReplayInto(ctx, numbersTopic, admin.CopyRequest{Into: k.topic, Job: "job-" + k.topic,
		From: fmt.Sprintf("offset:%d", k.from), To: fmt.Sprintf("offset:%d", k.to)})
	if err == nil {
		_, err = p.client.Await(ctx, op, func(admin.Operation) {})
	}
	if err != nil {
		return fmt.Errorf("copy of %d to %d: %w", k.from, k.to, err)
	}
	k.sure, c.pending = true, nil
	return nil
}

// Compare waits until a copy that a kill fell into is done.
func (c *copier) Compare(p *served) error {
	if c.pending == nil {
		return nil
	}
	k := c.pending
	c.pending = nil
	var j admin.Job
	err := until(context.Background(), k.topic+" is copied", func() (done bool, err error) {
		j, err = p.client.Job(context.Background(), "job-"+k.topic)
		if isProblem(err, admin.KindNotFound) {
			return true, nil
		}
		k.sure = err == nil
		return false, err
	})
	if err != nil {
		err = fmt.Errorf("%w: from %d to %d: %+v, %+v", err, k.from, k.to, j, j.Status)
	}
	return err
}

func (c *copier) End(*served) error { return nil }

func (c *copier) Check(tb testing.TB, w *Work) {
	tb.Helper()
	var numbers []string
	w.read(tb, numbersTopic, func(r runtime.TopicRecord) { numbers = append(numbers, string(r.Value)) })
	there := map[string]bool{}
	o, err := runtime.OpenOffline(w.Dir)
	if err != nil {
		tb.Fatal(err)
	}
	for _, t := range o.Topics() {
		there[t.Name] = true
	}
	for _, k := range c.copies {
		if !there[k.topic] {
			if k.sure {
				tb.Errorf("topic %s is not there", k.topic)
			}
			continue
		}
		var got []string
		w.read(tb, k.topic, func(r runtime.TopicRecord) {
			got = append(got, string(r.Value))
			if r.Headers[runtime.ReplayHeader] != "job-"+k.topic {
				tb.Errorf("topic %s: headers %v", k.topic, r.Headers)
			}
		})
		if !slices.Equal(got, numbers[k.from:k.to]) {
			tb.Errorf("topic %s has %d records, which should be those from %d to %d", k.topic, len(got), k.from, k.to)
		}
	}
}

func (c *copier) Counts() string {
	sure := 0
	for _, k := range c.copies {
		if k.sure {
			sure++
		}
	}
	return fmt.Sprintf("%d copies, %d of them whole or to be whole", len(c.copies), sure)
}
