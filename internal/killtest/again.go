package killtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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
	pending      bool
	behind       bus.Offset // no replay ends behind it
	done, inside int
}

func (y *replayer) Act(ctx context.Context, p *served) error {
	pause(y.rng, 100*time.Millisecond)
	return y.again(ctx, p, 0, admin.ReplayRequest{From: "earliest", Nothing: true})
}

// again makes a replay from an offset. It waits for the end of the one before, also where a kill fell into that: what is read again
// in a replay, and not to its end, is read once more behind the next one, which is right, and not what is compared.
func (y *replayer) again(ctx context.Context, p *served, from bus.Offset, req admin.ReplayRequest) error {
	if err := y.waits(ctx, p); err != nil {
		return err
	}
	j := y.jump(jump{to: from, from: -1, replay: true})
	y.pending, req.Topic = true, numbersTopic
	op, err := p.replay(ctx, y.name, req)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	in := op.Replay.Inputs
	if len(in) != 1 || len(in[0].From) != 1 || in[0].From[0] != from || op.Replay.ID == "" {
		return fmt.Errorf("%w: a replay from %s says %+v", errWrong, from, op.Replay)
	}
	j.sure, j.id, j.from = true, op.Replay.ID, int64(in[0].To[0])
	y.done, y.pending = y.done+1, false
	return nil
}

// waits waits until the job is at no replay and near the end.
func (y *replayer) waits(ctx context.Context, p *served) error {
	return until(ctx, "job "+y.name+" is where it was", func() (bool, error) {
		st, ok, err := p.subscription(numbersTopic, y.name)
		if err != nil || !ok {
			return false, err
		}
		t, err := p.topic(numbersTopic)
		if err != nil {
			return false, err
		}
		if st.Lag >= 500 || int64(t.Partitions[0].Next)-st.Lag < int64(y.behind) {
			return false, nil
		}
		_, err = p.replay(ctx, y.name, admin.ReplayRequest{Topic: numbersTopic, From: "earliest", Nothing: true, DryRun: true})
		if err != nil && strings.Contains(err.Error(), "still at replay") { // the epoch that says so is yet to come
			return false, nil
		}
		return err == nil, err
	})
}

// replay asks for a replay into a job, and waits until that is over, or until it is said what it would do.
func (p *served) replay(ctx context.Context, job string, req admin.ReplayRequest) (admin.Operation, error) {
	op, err := p.client.Replay(ctx, job, req)
	if err == nil {
		op, err = p.client.Await(ctx, op, func(admin.Operation) {})
	}
	return op, err
}

func (y *replayer) Compare(p *served) error {
	if !y.pending {
		return nil
	}
	y.inside, y.pending = y.inside+1, false
	t, err := p.topic(numbersTopic)
	if err == nil {
		y.behind = t.Partitions[0].Next
	}
	return err
}

func (y *replayer) Check(tb testing.TB, w *Work) {
	tb.Helper()
	y.mover.Check(tb, w)
	got, want := w.windows(tb, y.name)
	checkWindows(tb, y.name, withLastOfReplays(got, want), want, "", true)
	open := w.open(tb, y.name)
	for id, wins := range got {
		if id != "" {
			checkWindows(tb, y.name+" in replay "+id, wins, want, open[id], false)
		}
	}
}

// withLastOfReplays returns the windows that were given out in no replay, and those that a replay was first to give out. What the
// topic's writer says behind the last record of a replay is taken up to the next record, also where the job had stood before that:
// so a window that was open there may come with the replay's header, and not once more. It is one of the last of the replay.
func withLastOfReplays(got map[string]map[string][]int, want map[string]int) map[string][]int {
	const most = 3
	out := map[string][]int{}
	for start, n := range got[""] {
		out[start] = n
	}
	for id, wins := range got {
		if id == "" {
			continue
		}
		var starts []string
		for start := range wins {
			starts = append(starts, start)
		}
		slices.Sort(starts)
		for _, start := range starts[max(0, len(starts)-most):] {
			if len(out[start]) == 0 && len(wins[start]) == 1 && wins[start][0] == want[start] {
				out[start] = wins[start]
			}
		}
	}
	return out
}

// open returns, of each replay, the last window that was open where it began: with the record before it.
func (w *Work) open(tb testing.TB, name string) map[string]string {
	tb.Helper()
	starts := map[bus.Offset]string{}
	w.read(tb, numbersTopic, func(r runtime.TopicRecord) { starts[r.Offset] = windowStart(*r.Time) })
	open := map[string]string{}
	for _, s := range w.path(tb, name) {
		if _, ok := open[s.replay]; !ok {
			open[s.replay] = starts[s.at-1]
		}
	}
	return open
}

// checkWindows sees that each window was given once, with all that is in it: every one, or the first ones. Those that begin before
// from may be missing.
func checkWindows(tb testing.TB, who string, got map[string][]int, want map[string]int, from string, all bool) {
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
		case len(n) == 0 && (missing != "" || start < from):
		case len(n) == 0:
			missing = start
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
