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

// lossyTopic drops the oldest: loses reads it and is paused most of the time, while feeds writes all the time.
const lossyTopic = "lossy"

const (
	loses = `version: 1
job: loses
source: {bus: {topic: lossy, start: earliest}}
steps:
  - {id: path, map: {o: source.offset, v: 0}}
outputs:
  main: {bus: path-loses}
`
	feeds = `version: 1
job: feeds
source: {generator: {rate: 3000, devices: 3, seed: 1}}
outputs:
  main: {bus: {topic: lossy, limit: 16KiB, on_full: drop_oldest, retention: {max_bytes: 1GiB}}}
`
)

// Loser has a topic that drops the oldest. What its reader is said to have lost never becomes less, and is in the end, to the
// record, what the reader has not read, with the newest ranges of it by name.
func Loser(r *Round) Actor { return &loser{rng: r.random()} }

type loser struct {
	rng    *rand.Rand
	paused bool
	seen   uint64      // lost, as it was said last
	last   bus.SubStat // in the end
	done   int
}

func (l *loser) Begin(p *served) error {
	if err := p.define(loses, admin.ApplyRequest{}); err != nil {
		return err
	}
	return p.define(feeds, admin.ApplyRequest{})
}

func (l *loser) Act(ctx context.Context, p *served) (err error) {
	pause(l.rng, 60*time.Millisecond)
	if l.paused {
		_, err = p.client.ResumeJob(ctx, "loses")
	} else {
		_, err = p.client.PauseJob(ctx, "loses")
	}
	if err != nil {
		return fmt.Errorf("pause or resume: %w", err)
	}
	l.paused = !l.paused
	l.done++
	_, err = l.look(p)
	return err
}

// look sees what the reader is said to have lost.
func (l *loser) look(p *served) (bus.SubStat, error) {
	st, ok, err := p.subscription(lossyTopic, "loses")
	if err != nil {
		return st, err
	}
	if !ok || st.Dropped < l.seen {
		return st, fmt.Errorf("%w: the reader of topic %s had lost %d records, and now (%v) it is said to have lost %d", errWrong, lossyTopic, l.seen, ok, st.Dropped)
	}
	l.seen = st.Dropped
	return st, nil
}

func (l *loser) Compare(p *served) error {
	j, err := p.client.Job(context.Background(), "loses")
	if err != nil {
		return err
	}
	l.paused = j.Phase == runtime.PhasePaused
	_, err = l.look(p)
	return err
}

func (l *loser) End(p *served) error {
	ctx := context.Background()
	if _, err := p.client.PauseJob(ctx, "feeds"); err != nil {
		return err
	}
	if l.paused {
		if _, err := p.client.ResumeJob(ctx, "loses"); err != nil {
			return err
		}
	}
	err := until(ctx, "the reader has all that is left for it", func() (ok bool, err error) {
		l.last, err = l.look(p)
		return l.last.Lag == 0 && l.last.Dropping == 0, err
	})
	if err != nil {
		return err
	}
	return p.remove(ctx, "feeds")
}

func (l *loser) Check(tb testing.TB, w *Work) {
	tb.Helper()
	var lost []bus.LostIn
	next, n := bus.Offset(0), uint64(0)
	to := func(at bus.Offset) {
		if at > next {
			lost = append(lost, bus.LostIn{Lost: bus.Lost{From: next, To: at}, Records: int64(at - next)})
			n += uint64(at - next)
		}
		next = at
	}
	for _, s := range w.path(tb, "loses") {
		if s.at < next {
			tb.Fatalf("the reader of topic %s has read record %d behind record %d", lossyTopic, s.at, next-1)
		}
		to(s.at)
		next++
	}
	to(w.end(tb, lossyTopic))
	named := min(8, len(lost)) // that are kept
	if l.last.Dropped != n || !slices.Equal(l.last.Lost, lost[len(lost)-named:]) {
		tb.Errorf("the reader of topic %s has lost %d records, the last of them %v, and is said to have lost %d, %v", lossyTopic, n, lost[max(0, len(lost)-10):], l.last.Dropped, l.last.Lost)
	}
}

func (l *loser) Counts() string {
	return fmt.Sprintf("%d times paused or resumed; %d records lost", l.done, l.last.Dropped)
}

// spareTopic is what Sweeper removes.
const spareTopic = "spare"

// Sweeper lets a job write a topic, removes the job, and then the topic, and so on: each time that is made anew, with the records
// of its own and no others. A removal that a kill falls into is whole or has not happened, and what was acknowledged stays so.
func Sweeper(r *Round) Actor { return &sweeper{rng: r.random()} }

// stage is how far the sweeper's topic has come.
type stage int

const (
	noTopic   stage = iota
	written         // or is being written
	ownerless       // whole, and its job is removed
)

type sweeper struct {
	rng        *rand.Rand
	at         stage
	pending    bool // what leads to the next stage was asked for and not answered
	records    int  // that the topic gets
	id         bus.TopicID
	gone       []bus.TopicID // removed before the last start
	removed    []bus.TopicID // since then
	done, kept int
}

func (s *sweeper) Begin(*served) error { return nil }

func (s *sweeper) Act(ctx context.Context, p *served) (err error) {
	pause(s.rng, 20*time.Millisecond)
	switch s.at {
	case noTopic:
		s.records, s.pending = 1+s.rng.IntN(400), true
		err = p.define(fmt.Sprintf("version: 1\njob: fills\nsource: {generator: {count: %d, devices: 3, seed: 1}}\noutputs:\n  main: {bus: spare}\n", s.records), admin.ApplyRequest{})
	case written:
		if err := until(ctx, "topic spare is written", func() (bool, error) { return s.whole(p) }); err != nil {
			return err
		}
		s.pending = true
		err = p.remove(ctx, "fills")
	case ownerless:
		s.pending = true
		_, err = p.client.RemoveTopic(ctx, spareTopic, false)
	}
	if err != nil {
		return fmt.Errorf("from stage %d: %w", s.at, err)
	}
	s.step()
	return s.stands(p)
}

func (s *sweeper) step() {
	if s.at == ownerless {
		s.removed = append(s.removed, s.id)
		s.done++
	}
	s.at, s.pending = (s.at+1)%(ownerless+1), false
}

// whole reports whether the topic has all its records.
func (s *sweeper) whole(p *served) (bool, error) {
	t, err := p.topic(spareTopic)
	if err != nil {
		return false, err
	}
	s.id = t.ID
	at := t.Partitions[0]
	if int(at.Next) > s.records || slices.Contains(append(s.gone, s.removed...), t.ID) {
		return false, fmt.Errorf("%w: topic %s, number %d, has %d records, where %d were written; removed were %v", errWrong, spareTopic, t.ID, at.Next, s.records, append(s.gone, s.removed...))
	}
	return int(at.Next) == s.records, nil
}

// has reports which of topic and job there are.
func (s *sweeper) has(p *served) (topic, job bool, err error) {
	topics, err := p.client.Topics(context.Background())
	if err != nil {
		return false, false, err
	}
	topic = slices.ContainsFunc(topics, func(t bus.TopicStat) bool { return t.Name == spareTopic })
	_, err = p.client.Job(context.Background(), "fills")
	if isProblem(err, admin.KindNotFound) {
		return topic, false, nil
	}
	return topic, err == nil, err
}

// stands sees that all is as it should be at this stage.
func (s *sweeper) stands(p *served) error {
	topic, job, err := s.has(p)
	if err != nil {
		return err
	}
	ok := topic == (s.at != noTopic) && job == (s.at == written)
	if ok && topic {
		whole, err := s.whole(p)
		if err != nil {
			return err
		}
		ok = whole || s.at == written
	}
	if !ok {
		return fmt.Errorf("%w: topic %s is there: %v, with the job that writes it: %v, at stage %d", errWrong, spareTopic, topic, job, s.at)
	}
	return nil
}

func (s *sweeper) Compare(p *served) error {
	s.gone, s.removed = append(s.gone, s.removed...), nil
	topic, job, err := s.has(p)
	if err != nil {
		return err
	}
	if s.pending {
		s.kept++
		moved := map[stage]bool{noTopic: job, written: !job, ownerless: !topic}[s.at]
		if s.pending = false; moved {
			s.step()
			s.gone, s.removed = append(s.gone, s.removed...), nil
		}
	}
	return s.stands(p)
}

func (s *sweeper) End(*served) error { return nil }

func (s *sweeper) Check(tb testing.TB, w *Work) {
	tb.Helper()
	for _, id := range s.gone {
		if n := w.storedOf(tb, id); n > 0 {
			tb.Errorf("topic %d was removed, and before the last start; %d bytes of it lie in the topic store", id, n)
		}
	}
}

func (s *sweeper) Counts() string {
	return fmt.Sprintf("%d topics removed; %d kills in the middle of making or removing one", s.done, s.kept)
}
