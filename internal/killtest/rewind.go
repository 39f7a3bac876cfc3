package killtest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// Rewinder makes savepoints of its job, some of them in a replay, and lets it read again from one or another: with the state that
// it had there, and the places, in one. A savepoint that a kill falls into, as it is made or deleted, is whole or is not there.
func Rewinder(r *Round) Actor { return &rewinder{replayer: replayer{mover: newMover(r, "rewinds")}} }

const rewinderSavepoints = 4

type rewinder struct {
	replayer
	made          int
	known         []string
	asked, erased string // what a kill may fall into
	kept          int
}

func (y *rewinder) Act(ctx context.Context, p *served) error {
	pause(y.rng, 60*time.Millisecond)
	switch n := y.rng.IntN(4); {
	case len(y.known) == 0 || n == 0 && len(y.known) < rewinderSavepoints:
		return y.save(ctx, p)
	case n == 0:
		return y.erase(ctx, p)
	}
	if err := y.waits(ctx, p); err != nil {
		return err
	}
	req := admin.ReplayRequest{Topic: numbersTopic, From: "savepoint:" + y.known[y.rng.IntN(len(y.known))], DryRun: true}
	op, err := p.replay(ctx, y.name, req)
	if err != nil {
		return fmt.Errorf("replay, dry: %w", err)
	}
	in := op.Replay.Inputs
	if len(in) != 1 || len(in[0].From) != 1 || "savepoint:"+op.Replay.Savepoint != req.From {
		return fmt.Errorf("%w: a replay from %s says %+v", errWrong, req.From, op.Replay)
	}
	req.DryRun = false
	return y.again(ctx, p, in[0].From[0], req)
}

func (y *rewinder) save(ctx context.Context, p *served) error {
	y.made++
	y.asked = fmt.Sprintf("%s-%d", y.name, y.made)
	op, err := p.client.Savepoint(ctx, y.name, y.asked)
	if err == nil {
		op, err = p.client.Await(ctx, op, func(admin.Operation) {})
	}
	if err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	if op.Savepoint != y.asked {
		return fmt.Errorf("%w: savepoint %s is called %q", errWrong, y.asked, op.Savepoint)
	}
	y.known, y.asked = append(y.known, y.asked), ""
	return nil
}

func (y *rewinder) erase(ctx context.Context, p *served) error {
	i := y.rng.IntN(len(y.known))
	y.erased = y.known[i]
	if err := p.client.DeleteSavepoint(ctx, y.erased); err != nil {
		return fmt.Errorf("delete savepoint: %w", err)
	}
	y.known, y.erased = slices.Delete(y.known, i, i+1), ""
	return nil
}

func (y *rewinder) Compare(p *served) error {
	list, err := p.client.Savepoints(context.Background())
	if err != nil {
		return err
	}
	var there []string
	for _, s := range list {
		if s.Job == y.name {
			there = append(there, s.Name)
		}
	}
	for _, name := range there {
		if !slices.Contains(y.known, name) && name != y.asked {
			return fmt.Errorf("%w: savepoint %s is there", errWrong, name)
		}
	}
	for _, name := range y.known {
		if !slices.Contains(there, name) && name != y.erased {
			return fmt.Errorf("%w: savepoint %s is not there any more", errWrong, name)
		}
	}
	if y.asked+y.erased != "" {
		y.kept++
	}
	y.known, y.asked, y.erased = there, "", ""
	return y.replayer.Compare(p)
}

func (y *rewinder) Counts() string {
	return fmt.Sprintf("from savepoints: %s; %d savepoints, %d kills as one was made or deleted", y.replayer.Counts(), y.made, y.kept)
}
