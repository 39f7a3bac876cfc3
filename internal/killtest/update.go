package killtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// Keeper removes its job and leaves the state as a savepoint, and lets another of the same name begin with it: together they read
// each record once, and count as if nothing had been. A removal that a kill falls into is whole, with its savepoint, or is not.
func Keeper(r *Round) Actor { return &keeper{mover: newMover(r, "keeps")} }

type keeper struct {
	mover
	gone       bool
	savepoint  string   // that the next one begins with, if gone
	known      []string // all there were
	pending    string   // what was asked for and not answered: "remove", "begin"
	done, kept int
}

func (k *keeper) Act(ctx context.Context, p *served) error {
	pause(k.rng, 60*time.Millisecond)
	if k.gone {
		k.pending = "begin"
		if err := p.define(reader(k.name, 0), admin.ApplyRequest{From: k.savepoint}); err != nil {
			return fmt.Errorf("apply from %s: %w", k.savepoint, err)
		}
		k.gone, k.pending = false, ""
		return nil
	}
	k.pending = "remove"
	op, err := p.client.RemoveJob(ctx, k.name, runtime.RemoveOptions{KeepState: true})
	if err == nil {
		op, err = p.client.Await(ctx, op, func(admin.Operation) {})
	}
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if op.Savepoint == "" || slices.Contains(k.known, op.Savepoint) {
		return fmt.Errorf("%w: a removal left savepoint %q", errWrong, op.Savepoint)
	}
	k.gone, k.pending, k.savepoint = true, "", op.Savepoint
	k.known = append(k.known, op.Savepoint)
	k.done++
	return nil
}

func (k *keeper) Compare(p *served) error {
	ctx := context.Background()
	_, err := p.client.Job(ctx, k.name)
	gone := isProblem(err, admin.KindNotFound)
	if err != nil && !gone {
		return err
	}
	if gone != k.gone && k.pending == "" {
		return fmt.Errorf("%w: job %s: gone is %v, and should be %v", errWrong, k.name, gone, k.gone)
	}
	saved, err := p.client.Savepoints(ctx)
	if err != nil {
		return err
	}
	var names []string
	fresh := ""
	for _, s := range saved {
		if s.Job != k.name {
			continue
		}
		names = append(names, s.Name)
		if !slices.Contains(k.known, s.Name) {
			fresh = s.Name
			k.known = append(k.known, s.Name)
		}
	}
	for _, name := range k.known {
		if !slices.Contains(names, name) {
			return fmt.Errorf("%w: savepoint %s is not there any more", errWrong, name)
		}
	}
	removed := gone && !k.gone
	if removed != (fresh != "") {
		return fmt.Errorf("%w: a removal of job %s that a kill fell into is neither whole nor absent: gone is %v, its savepoint %q", errWrong, k.name, gone, fresh)
	}
	if removed {
		k.savepoint = fresh
	}
	if k.pending != "" {
		k.kept++
	}
	k.gone, k.pending = gone, ""
	return nil
}

func (k *keeper) End(p *served) error {
	if !k.gone {
		return nil
	}
	return p.define(reader(k.name, 0), admin.ApplyRequest{From: k.savepoint})
}

func (k *keeper) Check(tb testing.TB, w *Work) {
	tb.Helper()
	k.mover.Check(tb, w)
	got, want := w.windows(tb, k.name)
	checkWindows(tb, k.name, got[""], want, "", true)
}

func (k *keeper) Counts() string {
	return fmt.Sprintf("%d removals that left a savepoint; %d kills in the middle of one, or of beginning with it", k.done, k.kept)
}

// Updater changes its job's definition, now and then to one that fails at some record: within probation the one before comes back,
// also where a kill comes between. Nothing is lost, read twice or counted twice by any of it.
func Updater(r *Round) Actor { return &updater{mover: newMover(r, "updates")} }

type updater struct {
	mover
	version                int
	now, asked             string // definitions
	fails                  bool   // what was asked for does
	pending                bool
	good, back, kept, late int
}

// failing is a definition that fails where the offset is a multiple of 300.
func failing(text string) string {
	return strings.Replace(text, "steps:\n", "steps:\n  - {id: breaks, filter: {if: 'source.offset % 300 != 0 || value.nothing > 1'}}\n", 1)
}

func (u *updater) Begin(p *served) error {
	u.now = reader(u.name, 0)
	return u.mover.Begin(p)
}

func (u *updater) Act(ctx context.Context, p *served) error {
	pause(u.rng, 100*time.Millisecond)
	u.version++
	u.asked, u.fails, u.pending = reader(u.name, u.version), u.rng.IntN(2) == 0, true
	probation := "200ms"
	if u.fails {
		u.asked, probation = failing(u.asked), "10m" // so long that it is not over however slow the machine is
	}
	if err := p.define(u.asked, admin.ApplyRequest{Probation: probation}); err != nil {
		return fmt.Errorf("update: %w", err)
	}
	if !u.fails {
		u.now, u.pending = u.asked, false
		u.good++
		return nil
	}
	err := u.isBack(ctx, p)
	if err == nil {
		u.pending = false
		u.back++
	}
	return err
}

// isBack waits until the definition before is the job's again.
func (u *updater) isBack(ctx context.Context, p *served) error {
	return until(ctx, "the definition before is back", func() (bool, error) {
		j, err := p.client.Job(ctx, u.name)
		switch {
		case err != nil:
			return false, err
		case j.Phase == runtime.PhaseFailed:
			return false, fmt.Errorf("%w: job %s has failed, and the definition before it is not back: %s", errWrong, u.name, j.Reason)
		case j.Definition != u.now && j.Definition != u.asked:
			return false, fmt.Errorf("%w: job %s is defined as\n%s", errWrong, u.name, j.Definition)
		}
		return j.Definition == u.now, nil
	})
}

func (u *updater) Compare(p *served) error {
	j, err := p.client.Job(context.Background(), u.name)
	if err != nil {
		return err
	}
	was := u.pending
	u.pending = false
	switch {
	case !was && j.Definition != u.now:
		return fmt.Errorf("%w: job %s is defined as\n%s\nand should be\n%s", errWrong, u.name, j.Definition, u.now)
	case was && u.fails:
		u.kept++
		if j.Definition == u.asked {
			u.late++
		}
		return u.isBack(context.Background(), p)
	case was:
		if j.Definition != u.now && j.Definition != u.asked {
			return fmt.Errorf("%w: job %s is defined as\n%s", errWrong, u.name, j.Definition)
		}
		u.kept++
		u.now = j.Definition
	}
	return nil
}

func (u *updater) Check(tb testing.TB, w *Work) {
	tb.Helper()
	u.mover.Check(tb, w)
	got, want := w.windows(tb, u.name)
	checkWindows(tb, u.name, got[""], want, "", true)
}

func (u *updater) Counts() string {
	return fmt.Sprintf("%d updates, %d that failed and were taken back; %d kills in the middle of one, %d of them in the probation of one that fails", u.good, u.back, u.kept, u.late)
}
