package bus

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sidestream-dev/sidestream/wal"
)

// dropRig is a rig whose topic 1 drops the oldest.
func dropRig(t testing.TB, cfg Config, spec TopicSpec) *rig {
	r := newRig(t, cfg)
	spec.Name, spec.OnFull = "t", DropOldest
	r.define(1, spec)
	return r
}

// write publishes a hundred bytes in each of some partitions and makes the drops that are due, which it returns.
func (r *rig) write(partitions ...int) []Drop {
	r.t.Helper()
	var pubs []Publication
	for _, p := range partitions {
		pubs = append(pubs, hundred(1, p))
	}
	r.epoch(pubs)
	drops := r.DropsDue(pubs)
	r.ApplyDrops(drops)
	return drops
}

func (r *rig) subStat(id SubID) SubStat {
	r.t.Helper()
	for _, t := range r.Stats() {
		if i := slices.IndexFunc(t.Subscriptions, func(s SubStat) bool { return s.ID == id }); i >= 0 {
			return t.Subscriptions[i]
		}
	}
	r.t.Fatalf("there is no subscription %d", id)
	return SubStat{}
}

// TestDropOldest: who is behind by the limit loses an eighth of it, once, and nobody else loses anything; the topic is never
// full, and what is lost is counted when its reader has gone over it.
func TestDropOldest(t *testing.T) {
	r := dropRig(t, Config{}, TopicSpec{Limit: 1600})
	slow := r.NewReader(1, 1, r.subscribe(1, 1, Start{Earliest: true}), func() {})
	fast := r.NewReader(2, 1, r.subscribe(2, 1, Start{Earliest: true}), func() {})
	defer slow.Close()
	defer fast.Close()
	for i := range 15 {
		if d := r.write(0); d != nil {
			t.Fatalf("at %d bytes: %+v", (i+1)*100, d)
		}
	}
	r.Passed(2, []SubState{{Position: Position{Next: 14}}}, false)
	d := r.write(0)
	if want := []Drop{{Topic: 1, Sub: 1, To: 2, Records: 2}}; !slices.Equal(d, want) {
		t.Fatalf("at the limit %+v is dropped, want %+v", d, want)
	}
	r.checkFull("it drops", "", 0)
	if s := r.subStat(1); s.Dropped != 0 || s.Dropping != 2 || s.Lag != 14 || s.Unread != 1400 {
		t.Errorf("let go, and not gone over: %+v", s)
	}
	if d := r.write(0); d != nil {
		t.Errorf("one epoch later: %+v", d)
	}
	out := drain(t, slow, 5)
	if len(out) != 15 || out[0][:4] != "0:2=" {
		t.Errorf("the slow one reads %q", out)
	}
	if out := drain(t, fast, 5); len(out) != 17 {
		t.Errorf("the other one reads %q", out)
	}
	st := slow.States()
	if st[0].Dropped != 2 || st[0].Next != 17 {
		t.Errorf("the slow one stands at %+v", st)
	}
	r.Passed(1, st, false)
	if s := r.subStat(1); s.Dropped != 0 || s.Dropping != 2 || s.Lag != 0 {
		t.Errorf("gone over, which a crash may take back: %+v", s)
	}
	r.Passed(1, st, true)
	if s := r.subStat(1); s.Dropped != 2 || s.Dropping != 0 || !slices.Equal(s.Lost, []LostIn{{0, Lost{0, 2}, 2}}) {
		t.Errorf("gone over: %+v", s)
	}
	if s := r.subStat(2); s.Dropped+uint64(s.Dropping) != 0 {
		t.Errorf("the other one: %+v", s)
	}
}

// TestDropShares: every partition gives its share of what was written since the subscription came; one epoch alone, however
// large, stays.
func TestDropShares(t *testing.T) {
	r := dropRig(t, Config{}, TopicSpec{Partitions: 3, Limit: 3200})
	for range 10 {
		r.epoch([]Publication{hundred(1, 2)})
	}
	r.subscribe(1, 1, Start{Earliest: true})
	var d []Drop
	for d == nil {
		d = r.write(0, 0, 0, 1)
	}
	want := []Drop{{Topic: 1, Sub: 1, To: 3, Records: 3}, {Topic: 1, Sub: 1, Partition: 1, To: 1, Records: 1}}
	if !slices.Equal(d, want) {
		t.Errorf("%+v, want %+v", d, want)
	}
	var all []Publication
	for range 40 {
		all = append(all, hundred(1, 0))
	}
	r.epoch(all)
	d = r.DropsDue(all)
	if len(d) == 0 || d[0].Partition != 0 || d[0].To != all[0].Base {
		t.Errorf("the newest epoch begins at %s, and dropped is %+v", all[0].Base, d)
	}
	if n := r.DropsDue(nil); n != nil {
		t.Errorf("nothing was written, and dropped is %+v", n)
	}
}

// TestDropKeepsNothing: what was let go holds neither log nor store, and who goes on from before it does so behind it; a
// catalog knows as much.
func TestDropKeepsNothing(t *testing.T) {
	r := dropRig(t, Config{MemoryBytes: 1}, TopicSpec{Limit: 1000, Retention: Retention{MaxBytes: KeepNothing}})
	st := r.subscribe(1, 1, Start{Earliest: true})
	for range 40 {
		r.write(0)
		if r.log.last()%10 == 0 {
			r.rotate()
		}
	}
	r.rotate()
	r.durable()
	free := r.Free()
	if free < 20 {
		t.Fatalf("the log is free up to %s only", free)
	}
	r.Dropped(free)
	r.log.drop(free)
	again := makeRig(t, Config{}, r.log, r.now)
	r.must(again.LoadCatalog(r.AppendCatalog(nil)))
	for name, b := range map[string]*Bus{"who let it go": r.Bus, "the next process": again.Bus} {
		if b == again.Bus {
			for _, g := range r.gens {
				if len(b.gens) == 0 || b.gens[len(b.gens)-1].first < g.first {
					b.gens = append(b.gens, g)
				}
			}
		}
		rd := b.NewReader(1, 1, st, func() {})
		out := drain(t, rd, 3)
		at := rd.States()[0]
		if int(at.Dropped)+len(out) != 40 || at.Dropped < 30 || out[0] != fmt.Sprintf("0:%d=%s", at.Dropped, out[0][len(out[0])-98:]) {
			t.Errorf("%s: %d records dropped, %d read, first %q", name, at.Dropped, len(out), out[0])
		}
		if over := b.Beyond(1, st[0]); over.Dropped != at.Dropped || over.Next != Offset(at.Dropped) {
			t.Errorf("%s: beyond is %+v", name, over)
		}
		r.must(rd.Close())
	}
	if _, err := r.Subscribe(2, "new", 1, Start{At: 0}); !errors.As(err, new(*OffsetError)) {
		t.Errorf("what is gone can be begun with: %v", err)
	}
}

// TestDropStops: a reader that is to stop where all is let go stops, and goes on behind it.
func TestDropStops(t *testing.T) {
	r := dropRig(t, Config{}, TopicSpec{Limit: 800})
	rd := r.NewReader(1, 1, r.subscribe(1, 1, Start{Earliest: true}), func() {})
	defer rd.Close()
	rd.StopAt(0, 4)
	for range 30 {
		r.write(0)
	}
	if out := drain(t, rd, 2); len(out) > 1 || !rd.Stopped() { // of no records
		t.Errorf("stopped: %v, read %q", rd.Stopped(), out)
	}
	if st := rd.States()[0]; st.Next != 4 || st.Dropped != 4 || !slices.Equal(st.Lost, []Lost{{0, 4}}) {
		t.Errorf("it is to stop at 4, and has lost nothing behind that: %+v", st)
	}
	r.must(rd.Go([]SubState{{Position: Position{Next: 9}, Dropped: 2, Lost: []Lost{{7, 9}}}}))
	out := drain(t, rd, 2)
	if st := rd.States()[0]; st.Next != 30 || len(out) == 0 || len(out) > 8 || int(st.Dropped)+len(out) != 4+2+21 ||
		!slices.Equal(st.Lost, []Lost{{0, 4}, {7, Offset(30 - len(out))}}) {
		t.Errorf("read %d, at %+v", len(out), st)
	}
}

// TestDropNames: the newest ranges that were lost are named, those that follow on one another as one.
func TestDropNames(t *testing.T) {
	var all, have []Lost
	for i := range Offset(30) {
		l := Lost{i * 10, i*10 + 4}
		if i%3 == 1 {
			l.From = all[len(all)-1].To
			all[len(all)-1].To = l.To
		} else {
			all = append(all, l)
		}
		was := slices.Clone(have)
		next := remember(have, l)
		if !slices.Equal(have, was) {
			t.Fatalf("%v was changed to %v", was, have)
		}
		if have = next; !slices.Equal(have, all[max(0, len(all)-lostKept):]) {
			t.Fatalf("behind %v there is %v, of %v", l, have, all)
		}
	}
	st := SubState{Position: Position{Next: 500}, Dropped: 7, Lost: []Lost{{480, 487}}}.Behind(SubState{Position: Position{Next: 300}, Dropped: 11, Lost: []Lost{{1, 12}}})
	if st.Next != 500 || st.Dropped != 18 || !slices.Equal(st.Lost, []Lost{{1, 12}, {480, 487}}) {
		t.Errorf("behind: %+v", st)
	}
}

// TestDropCount: what a subscription lost stands in its place, in the catalog, and in what is shown once that is durable; it never
// goes back, and a place elsewhere keeps it.
func TestDropCount(t *testing.T) {
	r := dropRig(t, Config{}, TopicSpec{Partitions: 2, Limit: 1600})
	rd := r.NewReader(1, 1, r.subscribe(1, 1, Start{Earliest: true}), func() {})
	defer rd.Close()
	var want []LostIn
	read, total := 0, 0
	for range 12 {
		for range 20 {
			r.write(0, 1)
			total += 2
		}
		for _, s := range drain(t, rd, 3) {
			if s[1] == ':' {
				read++
			}
		}
		back := rd.States()
		for i, st := range back {
			got, err := DecodeSubState(AppendSubState(nil, st))
			r.must(err)
			back[i] = got
		}
		r.Passed(1, back, true)
		want = want[:0]
		for _, st := range back {
			for _, l := range st.Lost {
				want = append(want, LostIn{st.Partition, l, int64(l.To - l.From)})
			}
		}
		s := r.subStat(1)
		if int(s.Dropped) != total-read || s.Dropping != 0 || !slices.Equal(s.Lost, want) || len(want) == 0 {
			t.Fatalf("%d of %d read: %+v, want %v", read, total, s, want)
		}
		r.Passed(1, []SubState{{Dropped: 1}}, true)
		again := makeRig(t, Config{}, r.log, r.now)
		r.must(again.LoadCatalog(r.AppendCatalog(nil)))
		if now := again.subStat(1); now.Dropped != s.Dropped || !slices.Equal(now.Lost, s.Lost) {
			t.Fatalf("the next process knows %+v, where it was %+v", now, s)
		}
	}
}

// TestDropStopped: a reader that has stopped stays where it said so, over whatever is let go meanwhile, until it goes on.
func TestDropStopped(t *testing.T) {
	r := dropRig(t, Config{}, TopicSpec{Limit: 800})
	rd := r.NewReader(1, 1, r.subscribe(1, 1, Start{Earliest: true}), func() {})
	defer rd.Close()
	rd.StopAt(0, 2)
	for range 4 {
		r.write(0)
	}
	drain(t, rd, 2)
	at := rd.States()[0]
	if !rd.Stopped() || at.Next != 2 {
		t.Fatalf("stopped: %v, at %+v", rd.Stopped(), at)
	}
	for range 30 {
		r.write(0)
	}
	if b := r.Beyond(1, at); b.Next <= at.Next {
		t.Fatalf("nothing was let go behind %+v: %+v", at, b)
	}
	drain(t, rd, 2)
	if st := rd.States()[0]; st.Next != at.Next || st.Dropped != 0 || st.Watermark != at.Watermark || st.Marks != at.Marks {
		t.Errorf("it stopped at %+v, and is at %+v", at, st)
	}
	r.must(rd.Go(nil))
	out := drain(t, rd, 2)
	if st := rd.States()[0]; st.Next != 34 || len(out) == 0 || st.Dropped+uint64(len(out)) != 32 {
		t.Errorf("read %d, at %+v", len(out), st)
	}
}

// TestDropLive: while readers read as they can, each record is read once, in order, or counted as dropped.
func TestDropLive(t *testing.T) {
	r := dropRig(t, Config{MemoryBytes: 300}, TopicSpec{Partitions: 2, Limit: 20000, Retention: Retention{MaxBytes: KeepNothing}})
	var wg sync.WaitGroup
	var over atomic.Bool
	var lost atomic.Int64
	var wakes []func()
	const epochs = 3000
	for id := SubID(1); id <= 3; id++ {
		more := make(chan struct{}, 1)
		wake := func() {
			if id < 3 || over.Load() || r.Next(1, 0)%400 == 0 { // the last one sleeps most of the time
				select {
				case more <- struct{}{}:
				default:
				}
			}
		}
		wakes = append(wakes, wake)
		rd := r.NewReader(id, 1, r.subscribe(id, 1, Start{Earliest: true}), wake)
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer rd.Close()
			got := map[int]int{}
			for last := false; ; {
				b, ok, err := rd.Next(1 + int(id))
				if err != nil {
					t.Error(err)
					return
				}
				got[b.Partition] += b.Len()
				for _, st := range rd.States() {
					if got[st.Partition]+int(st.Dropped) != int(st.Next) {
						t.Errorf("reader %d has read %d and gone over %d records of partition %d, and stands at %s", id, got[st.Partition], st.Dropped, st.Partition, st.Next)
						return
					}
				}
				if b.LSN%(97*wal.LSN(id)) == 0 {
					r.Passed(id, rd.States(), true)
				}
				if !ok && last {
					break
				}
				if last = over.Load(); !ok && !last {
					<-more
				}
			}
			for _, st := range rd.States() {
				lost.Add(int64(st.Dropped))
				if st.Next != epochs {
					t.Errorf("reader %d ends at %s", id, st.Next)
				}
			}
		}()
	}
	for i := range epochs {
		r.write(0, 1)
		if i%40 == 39 {
			r.rotate()
			r.durable()
			free := r.Free()
			r.Dropped(free)
			r.log.drop(free)
		}
	}
	r.durable()
	over.Store(true)
	for _, wake := range wakes {
		wake()
	}
	wg.Wait()
	if lost.Load() == 0 {
		t.Error("nobody lost anything: that proves little")
	}
	t.Logf("%d of %d records were lost", lost.Load(), 3*2*epochs)
}
