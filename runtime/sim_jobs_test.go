package runtime

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
)

// simPlan is what a seed is about: its jobs, topics and sizes.
type simPlan struct {
	jobs         []*simJob
	topics       []jobs.Topic
	frameBytes   int
	epochBytes   int64
	sealedBytes  int64
	topicMemory  int64
	genBytes     int64
	logBytes     int64
	segmentBytes int64 // of the topic store
	chunkRecords int
	chunkBytes   int // of a snapshot
	steps        int // with faults, before the end is awaited without any
	crashes      int
	window       int64         // ms
	idle         time.Duration // after which a split holds nothing back; 0 for never
	changes      int           // one in so many steps begins a change
}

// simJob is one job of a plan: it reads an outside of numbered records, or a topic; it counts and sums by key, keeps a set by
// key and windows; it forwards two records of three to a topic; windows and late records go outside, perhaps to a topic too.
type simJob struct {
	idx      int
	name     string
	splits   int // of the outside source; 0 where it reads a topic
	hidden   int // of the splits, that come while it is read
	total    int // records of each split
	in       string
	start    jobs.BusStart
	width    int
	direct   bool   // it keeps state without a key_by behind the topic
	spread   bool   // its records are spread over the subtasks of the key_by
	forward  string // topic, or ""
	results  string // topic, or ""
	delivery jobs.Delivery
	boot     int // it is there from this process on
	def      *jobs.Job
	head     string // id of the first step of the task that keeps state
	number   int    // of a version of a hot job
	bad      bool   // it fails while it is on probation
	drops    uint8  // tables that it does not keep
	copies   bool   // it is there for a copy alone
	tells    bool   // it gives every record outside too
	some     bool   // which does not take every record
	target   *simTarget
	places   *[]*simTarget // of a hot job: where its output has gone by now
}

const (
	simOutOfOrder = 30 * time.Millisecond
	simKeys       = 7
)

// Tables that a version of a hot job may not keep.
const (
	simCount uint8 = 1 << iota
	simSet
)

// simValue is a record's value. By and the fields behind it say what caused it.
type simValue struct {
	Kind  uint8 // simSource …
	By    uint8 // index of the job that wrote it
	Wild  bool  // it may come late: it is far behind in its source, or was late before
	Split uint8
	N     uint32 // number in the split; of a window how many records
	Sum   uint64 // a value; of a window the sum
	Key   string
	Time  int64
}

const (
	simSource uint8 = iota
	simForward
	simWindow
	simLate
	simTold
)

func (v simValue) String() string {
	return fmt.Sprintf("{%s by %d, split %d, n %d, sum %d, key %s, time %d, wild %v}",
		[...]string{"source", "forward", "window", "late", "told"}[v.Kind], v.By, v.Split, v.N, v.Sum, v.Key, v.Time, v.Wild)
}

func encodeSim(dst []byte, v simValue) ([]byte, error) {
	wild := byte(0)
	if v.Wild {
		wild = 1
	}
	dst = append(dst, v.Kind, v.By, wild, v.Split)
	dst = binary.AppendUvarint(dst, uint64(v.N))
	dst = binary.AppendUvarint(dst, v.Sum)
	dst = binary.AppendVarint(dst, v.Time)
	return append(dst, v.Key...), nil
}

func decodeSim(b []byte) (v simValue, err error) {
	if len(b) < 7 {
		return v, errors.New("short")
	}
	v = simValue{Kind: b[0], By: b[1], Wild: b[2] == 1, Split: b[3]}
	b = b[4:]
	n, k := binary.Uvarint(b)
	b = b[k:]
	sum, k := binary.Uvarint(b)
	b = b[k:]
	at, k := binary.Varint(b)
	v.N, v.Sum, v.Time, v.Key = uint32(n), sum, at, string(b[k:])
	return v, nil
}

// mix is splitmix64's finisher.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// sourceRecord is record n of a split of a job's outside source: the same whenever it is read.
func (s *sim) sourceRecord(j *simJob, split, n int) simValue {
	h := mix(s.seed*1_000_003 + uint64(j.idx)*8191 + uint64(split)*131 + uint64(n)*0x9e3779b97f4a7c15)
	v := simValue{Kind: simSource, By: uint8(j.idx), Split: uint8(split), N: uint32(n), Sum: h % 97,
		Key: string(rune('a' + h>>8%simKeys)), Time: int64(n)*11 + int64(h>>16%30)}
	if split >= j.splits-j.hidden {
		v.Wild = true // event time has gone on without it
	} else if h>>24%24 == 0 {
		v.Wild = true
		v.Time -= 300
	}
	return v
}

// forwards says whether a job gives a record on.
func forwards(v simValue) bool { return v.Sum%3 != 0 }

func (s *sim) windowOf(t int64) int64 {
	w := s.plan.window
	return (t - ((t%w)+w)%w)
}

var errInjected = errors.New("injected")

// inject fails the attempt of a job where the scheduler has said so.
func (s *sim) inject(j *simJob) error {
	if s.armed[j.idx] == 0 {
		return nil
	}
	if s.armed[j.idx]--; s.armed[j.idx] > 0 {
		return nil
	}
	s.tracef("job %s fails", j.name)
	if s.rng.IntN(2) == 0 {
		panic(errInjected)
	}
	return errInjected
}

// build makes the job's definition.
func (j *simJob) build(s *sim) {
	codec := jobs.Codec[simValue]{Encode: encodeSim, Decode: decodeSim}
	def := jobs.New(j.name)
	def.Parallelism, def.Delivery = j.width, j.delivery
	topic := func(name string) jobs.BusTopic[simValue] {
		t := jobs.BusTopic[simValue]{Name: name, Codec: codec}
		for _, spec := range s.plan.topics {
			if spec.Name == name {
				t.Topic = spec
			}
		}
		return t
	}
	if j.copies {
		j.buildCopy(s, def, topic(j.in), topic(j.forward))
		return
	}
	var in *jobs.Stream[simValue]
	if j.splits > 0 {
		in = jobs.From(def, &simOutside{s: s, j: j}, codec, jobs.ID("in"),
			jobs.EventTime(func(v simValue) time.Time { return time.UnixMilli(v.Time) }, simOutOfOrder), jobs.IdleAfter(s.plan.idle))
	} else {
		opts := []jobs.Option{jobs.ID("in")}
		if j.start.Latest {
			opts = append(opts, jobs.StartLatest())
		}
		in = jobs.FromTopic(def, topic(j.in), opts...)
	}
	if j.spread {
		in = jobs.Rebalance(in)
	}
	if !j.direct {
		in = jobs.KeyBy(in, func(v simValue) string { return v.Key }, jobs.ID("key"))
	}
	main, side := jobs.Attach(in, jobs.Op[simValue, simValue, simValue]{Kind: "fold", ID: "fold", Keyed: true, EncodeOut: encodeSim, EncodeSide: encodeSim,
		New: func(env *jobs.Env, emit, side func(*jobs.Rec[simValue])) (jobs.Instance[simValue], error) {
			f := &simFold{s: s, j: j, emit: emit, side: side, watermark: env.Restored, windows: env.Table("windows")}
			if j.drops&simCount == 0 {
				f.count = env.Table("count")
			}
			if j.drops&simSet == 0 {
				f.set = env.Table("set")
			}
			return jobs.Instance[simValue]{Process: f.process, Watermark: f.advance}, nil
		}})
	if j.forward != "" {
		jobs.ToTopic(main, topic(j.forward))
	}
	if j.results != "" {
		jobs.ToTopic(side, topic(j.results))
	}
	jobs.To(side, "out", &simSink{s: s, j: j}, codec)
	j.def = def
	plan, err := planJob(def, func(name string) int { return topic(name).Topic.Partitions })
	s.must(err)
	j.head = plan.of[def.Node("fold")].head().ID
}

// simFold is the step that keeps a job's state, in one subtask.
type simFold struct {
	s                   *sim
	j                   *simJob
	emit, side          func(*jobs.Rec[simValue])
	watermark           jobs.Watermark
	count, set, windows jobs.Table
}

func addTo(b []byte, n, sum uint64) {
	binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)+n)
	binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])+sum)
}

func (f *simFold) process(r *jobs.Rec[simValue]) error {
	if err := f.s.inject(f.j); err != nil {
		return err
	}
	g, k, v := r.Key.Group, r.Key.Bytes, r.Value
	f.keep(g, k, v.Sum)
	start := f.s.windowOf(v.Time)
	v.Wild = v.Wild || v.Time <= int64(f.watermark)
	if start+f.s.plan.window-1 <= int64(f.watermark) {
		late := jobs.With(r, lateOf(v, f.j))
		f.side(&late)
	} else {
		b, _ := f.windows.Edit(g, k, start, nil, 16)
		addTo(b, 1, v.Sum)
	}
	if f.j.tells {
		told := jobs.With(r, toldOf(r.Value, f.j))
		f.side(&told)
	}
	if forwards(v) {
		out := jobs.With(r, forwardOf(v, f.j))
		f.emit(&out)
	}
	return nil
}

// keep counts and sums by key, and has the set.
func (f *simFold) keep(g uint8, k []byte, sum uint64) {
	if f.count != nil {
		b, _ := f.count.Edit(g, k, 0, nil, 16)
		addTo(b, 1, sum)
	}
	if f.set == nil {
		return
	}
	sub := []byte{byte('0' + sum%5)}
	if _, there := f.set.Get(g, k, 0, sub); there {
		f.set.Delete(g, k, 0, sub)
	} else {
		f.set.Put(g, k, 0, sub, []byte("there"))
	}
}

func lateOf(v simValue, j *simJob) simValue {
	v.Kind, v.By, v.Wild = simLate, uint8(j.idx), true
	return v
}

func toldOf(v simValue, j *simJob) simValue {
	v.Kind, v.By, v.Wild = simTold, uint8(j.idx), false
	return v
}

func forwardOf(v simValue, j *simJob) simValue {
	v.Kind, v.By = simForward, uint8(j.idx)
	return v
}

func windowOut(j *simJob, key string, end int64, n, sum uint64) simValue {
	return simValue{Kind: simWindow, By: uint8(j.idx), N: uint32(n), Sum: sum, Key: key, Time: end - 1}
}

func (f *simFold) advance(w jobs.Watermark) error {
	f.watermark = max(f.watermark, w)
	for _, start := range f.windows.Namespaces() {
		end := start + f.s.plan.window
		if end-1 > int64(w) {
			break
		}
		f.windows.Scan(start, func(group uint8, key, val []byte) bool {
			v := windowOut(f.j, keyText(key), end, binary.LittleEndian.Uint64(val), binary.LittleEndian.Uint64(val[8:]))
			f.side(&jobs.Rec[simValue]{Value: v, Time: jobs.Time(v.Time), Key: jobs.MakeKey(append([]byte(nil), key...))})
			return true
		})
		f.windows.DropNamespace(start)
	}
	return nil
}

// simOutside is a job's outside source: numbered records in some splits.
type simOutside struct {
	s *sim
	j *simJob
}

func (o *simOutside) Kind() string   { return "sim" }
func (o *simOutside) Bounded() bool  { return o.shown() == o.j.splits }
func (o *simOutside) String() string { return o.j.name }

// shown is how many splits there are by now.
func (o *simOutside) shown() int { return o.j.splits - o.j.hidden + o.s.revealed[o.j.idx] }

func simStart(i int) jobs.Start {
	return jobs.Start{Split: jobs.Split{ID: string(rune('0' + i)), Partition: int32(i)}}
}

func (o *simOutside) Splits(context.Context, jobs.SourceEnv) (out []jobs.Start, err error) {
	for i := range o.shown() {
		out = append(out, simStart(i))
	}
	return out, nil
}

// Discover is not called: the scheduler reveals splits.
func (o *simOutside) Discover(context.Context, jobs.SourceEnv) ([]jobs.Start, error) {
	return nil, errInjected
}

// reveal shows the next split of a job's outside source to whoever reads it.
func (s *sim) reveal(a *simAttempts) bool {
	j := s.specOf(a.j)
	if s.revealed[j.idx] == j.hidden {
		return false
	}
	next := simStart(j.splits - j.hidden + s.revealed[j.idx])
	s.revealed[j.idx]++
	s.tracef("%s: split %s comes", j.name, next.Split.ID)
	if a.x == nil {
		return true
	}
	s.count("splits found while they are read")
	for _, d := range a.x.discoveries {
		d.give([]jobs.Start{next})
		if s.twin.foundTwice {
			d.give([]jobs.Start{next})
		}
	}
	for _, t := range a.x.subtasks {
		t.wake() // the source may be bounded now
	}
	return true
}

func (o *simOutside) Open(_ context.Context, _ jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	r := &simOutsideReader{o: o, ready: make(chan struct{}, 1)}
	return r, r.Add(starts)
}

func (r *simOutsideReader) Add(starts []jobs.Start) error {
	for _, st := range starts {
		r.splits = append(r.splits, int(st.Split.Partition))
		r.next = append(r.next, positionOf(st.Position))
	}
	return nil
}

func positionOf(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	return int(binary.BigEndian.Uint32(b))
}

type simOutsideReader struct {
	o      *simOutside
	splits []int
	next   []int
	ready  chan struct{}
}

func (r *simOutsideReader) Read(c *jobs.Chunk, want []int) error {
	select { // there is always more, or its end
	case r.ready <- struct{}{}:
	default:
	}
	rng := r.o.s.rng
	if rng.IntN(4) == 0 {
		return nil // nothing at hand
	}
	if len(want) > 1 && rng.IntN(3) == 0 {
		want = want[1:] // the first has none
	}
	c.Split = want[0]
	n := min(1+rng.IntN(c.Max), r.o.j.total-r.next[c.Split])
	for range n {
		i := r.next[c.Split]
		v := r.o.s.sourceRecord(r.o.j, r.splits[c.Split], i)
		value, _ := encodeSim(nil, v)
		c.Messages = append(c.Messages, jobs.Message{Value: value, Time: jobs.NoTime, Offset: int64(i)})
		r.next[c.Split]++
	}
	c.Position = binary.BigEndian.AppendUint32(nil, uint32(r.next[c.Split]))
	c.Ended = r.next[c.Split] == r.o.j.total && (n == 0 || rng.IntN(2) == 0)
	return nil
}

func (r *simOutsideReader) Ready() <-chan struct{} { return r.ready }
func (r *simOutsideReader) Close() error           { return nil }

// newPlan draws what a seed is about.
func newPlan(rng *rand.Rand) *simPlan {
	p := &simPlan{frameBytes: 100 + rng.IntN(900), topicMemory: 200 + rng.Int64N(4000), genBytes: 1500 + rng.Int64N(8000),
		chunkRecords: 1 + rng.IntN(6), chunkBytes: 1 + rng.IntN(1+rng.IntN(1500)), steps: 300 + rng.IntN(600), crashes: 1 + rng.IntN(2), window: 40 + rng.Int64N(120)}
	p.epochBytes = 200 + rng.Int64N(3000)
	p.sealedBytes = p.epochBytes + rng.Int64N(5000)
	p.logBytes, p.segmentBytes = 1<<40, 200+rng.Int64N(1500)
	if rng.IntN(2) == 0 { // the log is short, and what topics keep is in the store when a crash comes
		p.genBytes = 300 + rng.Int64N(2000)
		p.logBytes = p.genBytes * rng.Int64N(3)
		p.steps += 600
		p.crashes += 2
	}
	if p.changes = 12; rng.IntN(2) == 0 { // changes one after another, and all that is written is kept for those who begin later
		p.changes = 2
		p.steps += 400
	}
	if rng.IntN(5) == 0 {
		p.idle = time.Duration(1+rng.IntN(10)) * time.Millisecond
	}
	topic := func(name string) string {
		t := jobs.Topic{Name: name, Partitions: 1 + rng.IntN(3), RetentionBytes: 1 + rng.Int64N(1+rng.Int64N(1500))}
		if p.changes < 12 && rng.IntN(2) == 0 {
			t.RetentionBytes = 1 << 20
		}
		if rng.IntN(3) == 0 {
			t.LimitBytes = 100 + rng.Int64N(900)
			if rng.IntN(2) == 0 {
				t.OnFull = string(bus.DropOldest)
			}
		}
		p.topics = append(p.topics, t)
		return name
	}
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	source := func(idx int) *simJob {
		j := &simJob{idx: idx, splits: 1 + rng.IntN(3), total: 30 + rng.IntN(60), forward: "a"}
		if p.changes < 12 {
			j.total += 60
		}
		return j
	}
	topic("a")
	topic("b")
	topic("d") // which only copies write
	p.jobs = append(p.jobs, source(0))
	if rng.IntN(2) == 0 {
		p.jobs[0].results = "b"
	}
	if rng.IntN(2) == 0 {
		j := source(1)
		j.forward = pick("a", "b")
		j.boot = rng.IntN(2) * rng.IntN(3)
		p.jobs = append(p.jobs, j)
	}
	c := &simJob{idx: len(p.jobs), in: "a", forward: pick("", topic("c"))}
	p.jobs = append(p.jobs, c)
	if rng.IntN(2) == 0 {
		var written []string
		for _, j := range p.jobs {
			for _, t := range []string{j.forward, j.results} {
				if t != "" {
					written = append(written, t)
				}
			}
		}
		from := pick(written...)
		p.jobs = append(p.jobs, &simJob{idx: len(p.jobs), in: from, boot: rng.IntN(2) * rng.IntN(3), start: jobs.BusStart{Latest: rng.IntN(3) == 0}})
	}
	topic(hotTopic)
	p.topics[len(p.topics)-1].RetentionBytes = 1 << 20 // it is there, in the store too, when it is removed
	for _, j := range p.jobs {
		j.name, j.target = fmt.Sprintf("job%d", j.idx), &simTarget{name: fmt.Sprintf("place of job%d", j.idx)}
		j.width = 1 + rng.IntN(2)
		j.direct = j.splits == 0 && rng.IntN(2) == 0
		if j.splits > 1 {
			j.hidden = rng.IntN(2) * rng.IntN(j.splits)
		}
		j.spread = !j.direct && rng.IntN(2) == 0
		j.delivery = jobs.Delivery(rng.IntN(2))
	}
	return p
}
