package runtime

import (
	"context"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// simTwin is the runtime with one thing broken, by something put around a piece of it. Nil fields break nothing.
type simTwin struct {
	name       string
	rules      []string                  // one of these should be found broken
	seldom     bool                      // by one seed in some hundred: looked for where SIM_TWINS says how often
	coreLog    func(*simLog) frameLog    // what the committer's core writes to
	log        func(*simLog) processLog  // what the rest of the runtime takes for the log
	booted     func(*sim, *Runtime)      // behind a recovery, before the jobs begin
	stepping   func(*subtask)            // before each step of a subtask
	sealed     func(*sim, *core)         // behind each turn of the committer
	foundTwice bool                      // a new split is given to subtasks twice
	unfenced   bool                      // a change does not fence
	sendSealed bool                      // senders take what is sealed
	prefixes   func(*sim, *model, int64) // at a crash, for each frame that is not durable: more that may be left of the log

	noStoreSync     bool // the topic store syncs nothing
	lateStoreSync   bool // the topic store says that it has synced, and does so later
	staleRest       bool // a snapshot does not take the place of one of the same epoch
	staleSavepoints bool // the positions of savepoints are older than their state
	halfCatalogs    bool // a log that ends within a catalog keeps what there is of it
	inherits        bool // a new job has the state of the last one of its name
	filesFirst      bool // a topic's files go before the frame that removes it
	deafSenders     bool // who sends what is dropped does not stop
}

func (t simTwin) put(s *sim, rt *Runtime, l *simLog) {
	if t.coreLog != nil {
		rt.committer.core.log = t.coreLog(l)
	}
	if t.log != nil {
		rt.log = t.log(l)
	}
	if t.booted != nil {
		t.booted(s, rt)
	}
}

var simTwins = []simTwin{
	{name: "positions in a frame of their own", rules: []string{"R3", "R4"},
		coreLog: func(l *simLog) frameLog { return apartLog{l} }},
	{name: "published before it has its place in the order", rules: []string{"R1", "R5"},
		prefixes: swapped},
	{name: "retention by what is sealed", rules: []string{"R6", "R4"},
		log: func(l *simLog) processLog { return hastyLog{l} },
		sealed: func(_ *sim, c *core) {
			for _, p := range c.passes {
				c.bus.Passed(p.sub, p.states, true)
			}
		}},
	{name: "a snapshot of what is not sealed", rules: []string{"snapshot", "R4"},
		stepping: scanLive},
	{name: "the watermark is not restored", rules: []string{"watermark", "R1", "R3", "R4"},
		booted: forgetWatermarks},
	{name: "a batch is overtaken by its barrier", rules: []string{"R3", "R4", "R1"},
		stepping: overtake},
	{name: "a new split is read twice", rules: []string{"R3", "R4", "R1"},
		foundTwice: true},
	{name: "sent before it is durable", rules: []string{"R2"},
		sendSealed: true},
	{name: "half a catalog is kept", rules: []string{"error"},
		halfCatalogs: true},
	{name: "the topic store is not synced", rules: []string{"error", "R4", "R5", "R6"},
		noStoreSync: true},
	{name: "the log is cut without a word of the topic store", rules: []string{"error", "R4", "R6"},
		coreLog: func(l *simLog) frameLog { return forgetfulLog{l} }},
	{name: "a removed job's number is given again", rules: []string{"R5", "error"}, // a topic of that number may be another's
		sealed: forgetNumbers},
	{name: "where a subscription begins stands not in the frame that adds it", rules: []string{"R3", "R4"},
		coreLog: func(l *simLog) frameLog { return laterLog{l} }},
	{name: "a change does not fence the attempts before it", rules: []string{"R1", "R3", "R4", "error", "snapshot", "watermark"},
		unfenced: true},
	{name: "a change is durable in two frames", rules: []string{"R1", "R3", "R4", "R5", "R6", "error"},
		coreLog: func(l *simLog) frameLog { return twiceLog{l} }},
	{name: "the topic store is announced before it is synced", rules: []string{"error", "R4", "R5", "R6"},
		lateStoreSync: true},
	{name: "the log is cut before the copy is durable", rules: []string{"R6", "R4"},
		log: func(l *simLog) processLog { return hastyLog{l} }},
	{name: "a replay keeps the state", rules: []string{"R4", "watermark"},
		coreLog: changing(keepState)},
	{name: "a replay is durable in two frames", rules: []string{"R3", "R4", "watermark"}, // R3: a copy's, which then has no end
		coreLog: func(l *simLog) frameLog { return backTwice{l} }},
	{name: "a seek forgets the watermark", rules: []string{"watermark", "R4"},
		coreLog: changing(forgetWatermark)},
	{name: "an update keeps what it drops", rules: []string{"R4"},
		coreLog: changing(keepDropped)},
	{name: "a roll-back takes back what is sealed", rules: []string{"R1", "R3", "R4", "watermark"},
		sealed: takeSealedBack},
	{name: "a roll-back does not bring the state back", rules: []string{"R4"},
		coreLog: changing(loseState)},
	{name: "a new job inherits what a removed one of its name had", rules: []string{"R1", "R3", "R4", "snapshot"},
		inherits: true},
	{name: "a savepoint's positions are older than its state", rules: []string{"R3"},
		staleSavepoints: true},
}

// apartLog writes an epoch's header, with its positions, in a frame before the one that holds what the epoch did.
type apartLog struct{ *simLog }

func (l apartLog) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	if kind == kindEpoch {
		i := slices.IndexFunc(sections, func(s wal.Section) bool { return s.Kind == checkpoint.SectionHeader })
		lsn, err := l.simLog.Append(kind, sections[i:i+1:i+1])
		if err != nil {
			return 0, err
		}
		l.frames[lsn-1].apart = true
	}
	return l.simLog.Append(kind, sections)
}

// forgetfulLog does not say what the topic store holds.
type forgetfulLog struct{ *simLog }

func (l forgetfulLog) AppendSmall(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	if kind == kindControl {
		c, err := decodeControl(sections[0].Body)
		l.s.must(err)
		if c.Store != nil {
			c.Store = nil
			sections = slices.Clone(sections)
			sections[0], err = c.section()
			l.s.must(err)
		}
	}
	return l.simLog.AppendSmall(kind, sections)
}

// swapped is a log whose order is not the one in which epochs became visible: of two frames the second may be left alone.
func swapped(s *sim, m *model, k int64) {
	if k+1 >= int64(len(s.log.frames)) {
		return
	}
	second := s.log.frames[k+1]
	if second.kind != kindEpoch || s.log.frames[k].kind != kindEpoch || s.log.frames[k].owner() == second.owner() {
		return
	}
	alone := *second
	alone.lsn--
	c := m.clone()
	c.apply(&alone)
}

// hastyLog does not let the janitor wait.
type hastyLog struct{ *simLog }

func (l hastyLog) WaitDurable(ctx context.Context, lsn wal.LSN) error {
	if t := l.s.running; t != nil && t.name == "janitor" {
		return nil
	}
	return l.simLog.WaitDurable(ctx, lsn)
}

// scanLive scans the newest values in place of the sealed ones.
func scanLive(s *subtask) {
	r := s.snapshot.Load()
	if r == nil || s.seen == r {
		return
	}
	s.seen, s.scans = r, nil
	r.from[s.id] = s.sealedTo
	for _, n := range s.nodes {
		if n.store == nil {
			continue
		}
		lo, hi := n.store.Groups()
		copied, err := checkpoint.NewStore(checkpoint.Config{Lo: lo, Hi: hi})
		if err != nil {
			panic(err)
		}
		for _, name := range []string{"count", "set", "windows"} {
			from, to := n.store.Table(n.node.ID, name), copied.Table(n.node.ID, name)
			for _, ns := range from.Namespaces() {
				from.Scan(ns, func(group uint8, key, val []byte) bool {
					to.Put(group, key, ns, nil, val)
					n.store.Table(n.node.ID, "set").Elements(group, key, 0, func(sub, val []byte) bool {
						copied.Table(n.node.ID, "set").Put(group, key, 0, sub, val)
						return true
					})
					return true
				})
			}
		}
		if piece, entries := copied.Cut(); entries > 0 {
			r.add(appendStep(n.node.ID, piece))
		}
	}
}

// overtake keeps what is collected for an edge back until a batch is full, whatever else goes there.
func overtake(s *subtask) {
	for _, e := range s.edges {
		e.flush = func() {}
	}
}

// forgetWatermarks takes from every job where event time stood.
func forgetWatermarks(s *sim, rt *Runtime) {
	for _, j := range rt.committer.core.ledger.Jobs {
		h := cloneHeader(j.header)
		h.Steps = nil
		for i := range h.Splits {
			h.Splits[i].Watermark = bus.NoWatermark
		}
		for i := range h.Subs {
			st, err := bus.DecodeSubState(h.Subs[i].State)
			s.must(err)
			st.Watermark = bus.NoWatermark
			h.Subs[i].State = bus.AppendSubState(nil, st)
		}
		j.header = h
	}
}

// forgetNumbers lets the next number be one behind the highest that is in use.
func forgetNumbers(_ *sim, c *core) {
	next := uint32(1)
	for _, j := range c.ledger.Jobs {
		next = max(next, j.ID+1)
		for _, sub := range slices.Sorted(maps.Keys(j.claims().subs)) {
			next = max(next, uint32(sub)+1)
		}
		for _, o := range j.Outputs {
			next = max(next, uint32(o.Topic)+1)
		}
		for _, in := range j.Inputs {
			next = max(next, uint32(in.Topic)+1)
		}
	}
	c.ledger.NextID = next
}

// changeOf returns the change in sections, or nil.
func changeOf(sections []wal.Section) *control {
	for _, s := range sections {
		if s.Kind == sectionControl {
			c, err := decodeControl(s.Body)
			if err != nil {
				panic(err)
			}
			return c
		}
	}
	return nil
}

func withChange(sections []wal.Section, c *control) []wal.Section {
	out := slices.Clone(sections)
	for i := range out {
		if out[i].Kind == sectionControl {
			s, err := c.section()
			if err != nil {
				panic(err)
			}
			out[i] = s
		}
	}
	return out
}

// laterLog leaves out of a change where subscriptions begin.
type laterLog struct{ *simLog }

func (l laterLog) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	if c := changeOf(sections); c != nil {
		for i := range c.Jobs {
			for k := range c.Jobs[i].Inputs {
				c.Jobs[i].Inputs[k].States = nil
			}
		}
		sections = withChange(sections, c)
	}
	return l.simLog.Append(kind, sections)
}

// twiceLog writes a change of jobs as two: what a job is comes first, what it reads and writes behind it.
type twiceLog struct{ *simLog }

func (l twiceLog) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	c := changeOf(sections)
	if c == nil || len(c.Jobs) == 0 || !c.Jobs[0].Replace {
		return l.simLog.Append(kind, sections)
	}
	first := *c
	first.Jobs = slices.Clone(c.Jobs)
	for i := range first.Jobs {
		first.Jobs[i].Inputs, first.Jobs[i].Outputs, first.Jobs[i].Replace = nil, nil, false
	}
	if lsn, err := l.simLog.Append(kind, withChange(sections[:1], &first)); err != nil {
		return lsn, err
	}
	return l.simLog.Append(kind, sections)
}

// TestSimTwins looks for the seed that catches each twin, SIM_TWINS times.
func TestSimTwins(t *testing.T) {
	const seedsMax = 10_000
	times := int(simEnv(t, "SIM_TWINS", 1))
	for _, twin := range slices.Concat(simTwins, dropTwins, copyTwins, topicTwins, outputTwins) {
		if twin.seldom && os.Getenv("SIM_TWINS") == "" {
			continue
		}
		t.Run(twin.name, func(t *testing.T) {
			t.Parallel()
			var needed []uint64
			found := map[string]int{}
			for seed, last := uint64(1), uint64(0); len(needed) < times; seed++ {
				if v := runSim(seed, twin, nil); v != nil {
					if !slices.Contains(twin.rules, v.rule) {
						t.Errorf("seed %d finds %v; want one of %v", seed, v, twin.rules)
					}
					needed = append(needed, seed-last)
					found[v.rule]++
					last = seed
				} else if seed-last >= seedsMax {
					t.Fatalf("not caught by %d seeds; before, it took %v", seedsMax, needed)
				}
			}
			slices.Sort(needed)
			t.Logf("caught after %v seeds, typically %d, as %v", needed, needed[times/2], found)
		})
	}
}
