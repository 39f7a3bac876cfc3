package kafka

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// groupEvery is how often offsets are shown at most.
const groupEvery = 500 * time.Millisecond

// groupOffsets commits durable offsets to a group that nobody is a member of. What it cannot commit it tries again;
// nothing of ours depends on it.
type groupOffsets struct {
	name string
	log  *slog.Logger
	wake chan struct{}
	quit chan struct{}
	done chan struct{}

	mu      sync.Mutex
	pending kadm.Offsets
	failing bool
}

func newGroupOffsets(name string, log *slog.Logger) *groupOffsets {
	return &groupOffsets{
		name: name, log: log, pending: kadm.Offsets{},
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
}

func (g *groupOffsets) set(topic string, partition int32, p position) {
	g.mu.Lock()
	g.pending.AddOffset(topic, partition, p.offset, p.epoch)
	g.mu.Unlock()
	token(g.wake)
}

func (g *groupOffsets) start(cl *kgo.Client) { go g.run(kadm.NewClient(cl)) }

// close shows what is pending, if that takes no longer than a second, and ends the goroutine.
func (g *groupOffsets) close() {
	close(g.quit)
	<-g.done
}

func (g *groupOffsets) run(adm *kadm.Client) {
	defer close(g.done)
	for {
		select {
		case <-g.wake:
			if !g.commit(adm) {
				token(g.wake)
			}
		case <-g.quit:
			g.commit(adm)
			return
		}
		select {
		case <-time.After(groupEvery):
		case <-g.quit:
			g.commit(adm)
			return
		}
	}
}

func (g *groupOffsets) commit(adm *kadm.Client) bool {
	g.mu.Lock()
	offsets := g.pending
	g.pending = kadm.Offsets{}
	g.mu.Unlock()
	if len(offsets) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := adm.CommitAllOffsets(ctx, g.name, offsets)
	if (err != nil) != g.failing {
		g.failing = err != nil
		if err != nil {
			g.log.Warn("kafka: offsets are not shown to the group", "group", g.name, "err", err)
		}
	}
	if err == nil {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	newer := g.pending
	g.pending = offsets
	newer.Each(func(o kadm.Offset) { g.pending.Add(o) })
	return false
}
