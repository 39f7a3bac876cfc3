package killtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// windowSpan is that of the windows of reader.
const windowSpan = 100 * time.Millisecond

// mover has a job that reads the numbers, and whose place is changed. What the job gave out must be its path.
type mover struct {
	name  string
	rng   *rand.Rand
	jumps []jump
}

func newMover(r *Round, name string) mover { return mover{name: name, rng: r.random()} }

func (m *mover) Begin(p *served) error { return p.define(reader(m.name, 0), admin.ApplyRequest{}) }

func (m *mover) End(*served) error { return nil }

func (m *mover) Check(tb testing.TB, w *Work) {
	tb.Helper()
	if wrong := follows(w.path(tb, m.name), m.jumps, w.end(tb, numbersTopic)); wrong != "" {
		tb.Errorf("job %s: %.2000s", m.name, wrong)
	}
}

// jump takes down a jump that is asked for. What it returns is good until the next.
func (m *mover) jump(j jump) *jump {
	m.jumps = append(m.jumps, j)
	return &m.jumps[len(m.jumps)-1]
}

// pause waits a moment.
func pause(rng *rand.Rand, most time.Duration) { time.Sleep(time.Duration(rng.Int64N(int64(most)))) }

// Seeker sets its job elsewhere: as often as that was acknowledged, and perhaps once more for each kill, the job reads on from
// there, and never from anywhere else.
func Seeker(r *Round) Actor { return &seeker{mover: newMover(r, "seeks")} }

type seeker struct {
	mover
	done int
}

func (s *seeker) Act(ctx context.Context, p *served) error {
	pause(s.rng, 15*time.Millisecond)
	t, err := p.topic(numbersTopic)
	if err != nil {
		return err
	}
	first, next := t.Partitions[0].First, t.Partitions[0].Next
	if next == 0 {
		return nil
	}
	to := first + bus.Offset(s.rng.Int64N(int64(next-first)))
	if s.rng.IntN(4) > 0 {
		to = bus.Offset(max(int64(first), int64(next)-1-s.rng.Int64N(1000)))
	}
	j := s.jump(jump{to: to, from: -1})
	moved, err := p.client.Seek(ctx, numbersTopic, admin.SeekRequest{Reader: s.name, To: fmt.Sprintf("offset:%d", to)})
	if err != nil {
		return fmt.Errorf("seek to %d: %w", to, err)
	}
	if len(moved) != 1 || len(moved[0].To) != 1 || moved[0].To[0] != to {
		return fmt.Errorf("%w: a seek to %d says %+v", errWrong, to, moved)
	}
	if j.sure = true; len(moved[0].From) == 1 { // else it had not read anything since the last seek
		j.from = int64(moved[0].From[0])
	}
	s.done++
	return nil
}

func (s *seeker) Compare(p *served) error {
	_, ok, err := p.subscription(numbersTopic, s.name)
	if err == nil && !ok {
		err = fmt.Errorf("%w: job %s has no subscription any more", errWrong, s.name)
	}
	return err
}

func (s *seeker) Counts() string { return fmt.Sprintf("%d seeks, %d jumps", s.done, len(s.jumps)) }

// Detacher detaches its job and resumes it: then it begins with the oldest record. While it is detached it is stopped, and nothing
// is kept for it.
func Detacher(r *Round) Actor { return &detacher{mover: newMover(r, "detaches")} }

type detacher struct {
	mover
	detached   bool
	asked      bool // whether it is to be detached, or not any more, where a kill may have fallen into that
	pending    bool
	done, kept int
}

func (d *detacher) Act(ctx context.Context, p *served) error {
	pause(d.rng, 60*time.Millisecond)
	d.asked, d.pending = !d.detached, true
	if d.detached {
		if _, err := p.client.ResumeJob(ctx, d.name); err != nil {
			return fmt.Errorf("resume: %w", err)
		}
	} else {
		j := d.jump(jump{from: -1})
		gone, err := p.client.Detach(ctx, numbersTopic, admin.DetachRequest{Reader: d.name})
		if err != nil {
			return fmt.Errorf("detach: %w", err)
		}
		if len(gone) != 1 || len(gone[0].From) != 1 {
			return fmt.Errorf("%w: a detach says %+v", errWrong, gone)
		}
		j.sure, j.from = true, int64(gone[0].From[0])
		d.done++
	}
	d.detached, d.pending = d.asked, false
	return d.stands(p)
}

// stands sees that the job is detached as a whole, or not at all, as it should be.
func (d *detacher) stands(p *served) error {
	_, subscribed, err := p.subscription(numbersTopic, d.name)
	if err != nil {
		return err
	}
	j, err := p.client.Job(context.Background(), d.name)
	if err != nil {
		return err
	}
	if stopped := j.Phase == runtime.PhaseStopped; stopped == subscribed || stopped != d.detached {
		return fmt.Errorf("%w: job %s is %s, subscribed=%v, and detached should be %v", errWrong, d.name, j.Phase, subscribed, d.detached)
	}
	return nil
}

func (d *detacher) Compare(p *served) error {
	if d.pending {
		j, err := p.client.Job(context.Background(), d.name)
		if err != nil {
			return err
		}
		is := j.Phase == runtime.PhaseStopped
		if last := len(d.jumps) - 1; d.asked && is {
			d.jumps[last].sure = true
		} else if d.asked {
			d.jumps = d.jumps[:last]
		}
		d.detached, d.pending = is, false
		d.kept++
	}
	return d.stands(p)
}

func (d *detacher) End(p *served) (err error) {
	if d.detached {
		_, err = p.client.ResumeJob(context.Background(), d.name)
	}
	return err
}

func (d *detacher) Counts() string {
	return fmt.Sprintf("%d times detached; %d kills in the middle of it, or of resuming", d.done, d.kept)
}

// Purger lets go of what lies before a place, which it asks for before and behind the place of its job: what the job has yet to
// read is never let go, what an answer said is gone stays gone.
func Purger(r *Round) Actor { return &purger{mover: newMover(r, "purges")} }

type purger struct {
	mover
	first         bus.Offset // the oldest record that may be there
	asked         bus.Offset
	done, refused int
}

func (g *purger) Act(ctx context.Context, p *served) error {
	pause(g.rng, 30*time.Millisecond)
	t, err := p.topic(numbersTopic)
	if err != nil {
		return err
	}
	first, next := t.Partitions[0].First, t.Partitions[0].Next
	if first < g.first {
		return fmt.Errorf("%w: topic %s begins at %d, and everything before %d was purged", errWrong, numbersTopic, first, g.first)
	}
	if next == first {
		return nil
	}
	g.asked = first + bus.Offset(g.rng.Int64N(int64(next-first)+1))
	res, err := p.client.Purge(ctx, numbersTopic, admin.PurgeRequest{Before: fmt.Sprintf("offset:%d", g.asked)})
	if isProblem(err, admin.KindRefused) {
		g.refused++
		return nil
	}
	if err != nil {
		return fmt.Errorf("purge before %d: %w", g.asked, err)
	}
	if len(res.Before) != 1 || res.Before[0] < g.asked {
		return fmt.Errorf("%w: a purge before %d says %+v", errWrong, g.asked, res)
	}
	g.first = g.asked
	g.done++
	return nil
}

func (g *purger) Compare(p *served) error {
	t, err := p.topic(numbersTopic)
	if err != nil {
		return err
	}
	if first := t.Partitions[0].First; first < g.first || first > max(g.first, g.asked) {
		return fmt.Errorf("%w: topic %s begins at %d; everything before %d was purged, and perhaps before %d", errWrong, numbersTopic, first, g.first, g.asked)
	}
	g.first = t.Partitions[0].First
	return nil
}

func (g *purger) Counts() string {
	return fmt.Sprintf("%d purges, up to %d; %d refused since the job had yet to read there", g.done, g.first, g.refused)
}

// Retainer sets the retention of a topic: it holds what was acknowledged last, or what was asked for as the kill came. Its
// topic is that of the path of a job of its own.
func Retainer(r *Round) Actor { return &retainer{mover: newMover(r, "retains")} }

type retainer struct {
	mover
	now, asked int64
	pending    bool
	done       int
}

func (k *retainer) topic() string { return "path-" + k.name }

func (k *retainer) Begin(p *served) error {
	k.now = 1 << 30
	return k.mover.Begin(p)
}

func (k *retainer) Act(ctx context.Context, p *served) error {
	pause(k.rng, 15*time.Millisecond)
	k.asked, k.pending = 1<<29+k.rng.Int64N(1<<29), true
	res, err := p.client.SetRetention(ctx, k.topic(), admin.RetentionRequest{MaxBytes: k.asked})
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	if res.Was.MaxBytes != k.now && k.done > 0 || res.Keeps.MaxBytes != k.asked {
		return fmt.Errorf("%w: a retention of %d, which was %d, says %+v", errWrong, k.asked, k.now, res)
	}
	k.now, k.pending = k.asked, false
	k.done++
	return nil
}

func (k *retainer) Compare(p *served) error {
	t, err := p.topic(k.topic())
	if err != nil {
		return err
	}
	if t.Retention != k.now && !(k.pending && t.Retention == k.asked) {
		return fmt.Errorf("%w: topic %s keeps %d bytes, and should %d, or %d if %v", errWrong, t.Name, t.Retention, k.now, k.asked, k.pending)
	}
	k.now, k.pending = t.Retention, false
	return nil
}

func (k *retainer) Counts() string { return fmt.Sprintf("%d times another retention", k.done) }
