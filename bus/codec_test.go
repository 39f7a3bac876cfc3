package bus

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"
)

func someRecords() []Record {
	return []Record{
		{Key: []byte("k"), Value: []byte(`{"a":1}`), Time: 1_700_000_000_000},
		{Key: []byte{}, Value: []byte{}, Time: 1_699_999_999_999},
		{Value: nil, Time: NoTime},
		{Value: []byte("v"), Time: 1_700_000_000_001, Headers: []Header{{"error", []byte("bad")}, {"", []byte{}}}},
		{Value: []byte("last"), Time: math.MaxInt64},
		{Value: []byte("first"), Time: math.MinInt64 + 1},
	}
}

func build(rs []Record) (data []byte, count int) {
	var b Builder
	for _, r := range rs {
		b.Append(r)
	}
	return b.Bytes(), b.Count()
}

func someIndex() ([]Publication, []Mark) {
	return []Publication{
			{Topic: 3, Partition: 0, Count: 300, Base: 0, Bytes: 4000, Section: 0, Latest: 1_700_000_000_123},
			{Topic: 3, Partition: 127, Count: 1, Base: 1 << 40, Bytes: 1, Part: 900, Section: 2, Latest: NoTime},
			{Topic: math.MaxUint32, Partition: 1, Count: 0, Base: math.MaxUint64, Bytes: math.MaxInt64, Part: math.MaxUint64, Section: math.MaxInt32},
		}, []Mark{
			{Topic: 3, Producer: 1, Watermark: 1_700_000_000_000},
			{Topic: 3, Producer: 2, Watermark: NoWatermark, Idle: true},
			{Topic: 3, Producer: 3, Watermark: NoWatermark, Join: true},
			{Topic: 4, Producer: math.MaxUint32, Watermark: NoWatermark, Leave: true},
			{Topic: 5, Producer: 0, Watermark: NoWatermark},
			{Topic: 5, Producer: 9, Watermark: math.MinInt64 + 1},
		}
}

func someState() SubState {
	return SubState{Partition: 5, Position: Position{Next: 1 << 33, Marks: 700}, Watermark: 1_700_000_000_000,
		Table: []ProducerMark{{Producer: 1, Watermark: 1_700_000_000_500}, {Producer: 2, Watermark: NoWatermark},
			{Producer: 300, Watermark: -1, Idle: true}}}
}

// lossyState is someState of a subscription that lost something.
func lossyState() SubState {
	s := someState()
	s.Dropped, s.Lost = 1<<20+3, []Lost{{5, 8}, {1 << 32, 1<<32 + 1<<20}}
	return s
}

func TestGolden(t *testing.T) {
	data, _ := build(someRecords())
	golden(t, "records-v1.hex", data)
	golden(t, "index-v2.hex", AppendIndex(nil, nil, nil))
	pubs, marks := someIndex()
	golden(t, "index-full-v2.hex", AppendIndex(nil, pubs, marks))
	golden(t, "position-v2.hex", AppendSubState(nil, SubState{Watermark: NoWatermark}))
	golden(t, "position-full-v2.hex", AppendSubState(nil, someState()))
	golden(t, "position-lost-v2.hex", AppendSubState(nil, lossyState()))
	golden(t, "catalog-empty-v1.hex", newRig(t, Config{}).AppendCatalog(nil))
	golden(t, "catalog-v1.hex", someBus(t).AppendCatalog(nil))
}

// decodeRecords reads a section to its end.
func decodeRecords(data []byte) (rs []Record, err error) {
	w := walker{decoder: decoder{b: data}}
	for w.off < len(w.b) && w.err == nil {
		r := w.next()
		if w.err == nil {
			rs = append(rs, r)
		}
	}
	return rs, w.result("records")
}

func TestRecordsRoundTrip(t *testing.T) {
	want := someRecords()
	data, n := build(want)
	got, err := decodeRecords(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v %v\nwant %v", got, err, want)
	}
	if err := checkRecords(data, n); err != nil {
		t.Error(err)
	}
	for _, wrong := range []int{n - 1, n + 1, 0} {
		var damage *DecodeError
		if err := checkRecords(data, wrong); !errors.As(err, &damage) {
			t.Errorf("%d records in a section of %d: %v", wrong, n, err)
		}
	}
}

// TestBatchInPieces: however a publication is cut into batches, they give its records, with one walk over its bytes.
func TestBatchInPieces(t *testing.T) {
	want := someRecords()
	data, n := build(want)
	for max := 1; max <= n; max++ {
		var m mark
		var got []Record
		for from := 0; from < n; from += max {
			b := Batch{data: data, From: from, To: min(from+max, n), mark: &m}
			if from > 0 && (m.n != from || m.off == 0) {
				t.Fatalf("pieces of %d: the walk would begin anew at record %d: %+v", max, from, m)
			}
			for r := range b.Records() {
				got = append(got, r)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("pieces of %d: got %v", max, got)
		}
	}
	// Out of order, and stopped early: right all the same.
	var m mark
	for _, from := range []int{3, 0, 5, 2, 2} {
		for r := range (&Batch{data: data, From: from, To: n, mark: &m}).Records() {
			if !reflect.DeepEqual(r, want[from]) {
				t.Errorf("record %d: %v", from, r)
			}
			break
		}
		for range (&Batch{data: data, From: from, To: from + 1, mark: &m}).Records() {
		}
	}
	if got := (&Batch{data: data, From: 1, To: n}).latest(5); got != math.MaxInt64 {
		t.Errorf("latest is %d", got)
	}
	if got := (&Batch{data: data, From: 1, To: 3}).latest(1_800_000_000_000); got != 1_800_000_000_000 {
		t.Errorf("latest goes back to %d", got)
	}
}

func TestBuilderResets(t *testing.T) {
	var b Builder
	b.Append(Record{Value: []byte("one"), Time: 500})
	first := b.Bytes()
	keep := bytes.Clone(first)
	b.Reset()
	if b.Count() != 0 || len(b.Bytes()) != 0 {
		t.Errorf("after Reset: %d records, %d bytes", b.Count(), len(b.Bytes()))
	}
	for range 100 {
		b.Append(Record{Value: []byte("two"), Time: 500})
	}
	if !bytes.Equal(first, keep) {
		t.Error("what Bytes returned has changed after Reset")
	}
	var fresh Builder
	for range 100 {
		fresh.Append(Record{Value: []byte("two"), Time: 500})
	}
	if !bytes.Equal(b.Bytes(), fresh.Bytes()) {
		t.Error("a Builder that was reset encodes differently")
	}
}

func TestIndexRoundTrip(t *testing.T) {
	pubs, marks := someIndex()
	gotPubs, gotMarks, err := DecodeIndex(AppendIndex(nil, pubs, marks))
	if err != nil || !reflect.DeepEqual(gotPubs, pubs) || !reflect.DeepEqual(gotMarks, marks) {
		t.Errorf("got %v %v %v", gotPubs, gotMarks, err)
	}
}

// TestMarksAreNormal: what a mark cannot say is not written.
func TestMarksAreNormal(t *testing.T) {
	tests := []struct {
		name     string
		in, want Mark
	}{
		{"a final watermark is never given", Mark{Watermark: math.MaxInt64}, Mark{Watermark: NoWatermark}},
		{"idle says no watermark", Mark{Watermark: 5, Idle: true}, Mark{Watermark: NoWatermark, Idle: true}},
		{"joining says nothing else", Mark{Watermark: 5, Join: true, Idle: true}, Mark{Watermark: NoWatermark, Join: true}},
		{"leaving says nothing else", Mark{Watermark: math.MaxInt64, Join: true, Idle: true, Leave: true}, Mark{Watermark: NoWatermark, Leave: true}},
		{"a watermark", Mark{Watermark: -7}, Mark{Watermark: -7}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got, err := DecodeIndex(AppendIndex(nil, nil, []Mark{tt.in}))
			if err != nil || len(got) != 1 || got[0] != tt.want {
				t.Errorf("got %+v %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestSubStateRoundTrip(t *testing.T) {
	for _, want := range []SubState{someState(), lossyState(), {Watermark: NoWatermark}, {Watermark: 0, Idle: true, Position: Position{Next: math.MaxUint64, Marks: math.MaxUint64}}} {
		got, err := DecodeSubState(AppendSubState(nil, want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v %v\nwant %+v", got, err, want)
		}
	}
}

// TestTruncatedAndFlipped: no cut and no flipped bit gets through with the same meaning, and none panics.
func TestTruncatedAndFlipped(t *testing.T) {
	pubs, marks := someIndex()
	data, n := build(someRecords())
	tests := []struct {
		name   string
		body   []byte
		decode func([]byte) ([]byte, error) // and encode again
	}{
		{"index", AppendIndex(nil, pubs, marks), reencodeIndex},
		{"position", AppendSubState(nil, someState()), reencodeState},
		{"position of one that lost something", AppendSubState(nil, lossyState()), reencodeState},
		{"records", data, func(b []byte) ([]byte, error) { return b, checkRecords(b, n) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var damage *DecodeError
			for i := range tt.body {
				if _, err := tt.decode(tt.body[:i]); !errors.As(err, &damage) {
					t.Errorf("cut at byte %d: %v", i, err)
				}
			}
			for i := range 8 * len(tt.body) {
				b := bytes.Clone(tt.body)
				b[i/8] ^= 1 << (i % 8)
				if back, err := tt.decode(b); err == nil && !bytes.Equal(back, b) {
					t.Errorf("bit %d flipped: accepted, and encoded as %x", i, back)
				}
			}
			if _, err := tt.decode(append(bytes.Clone(tt.body), 0)); !errors.As(err, &damage) {
				t.Errorf("a byte more: %v", err)
			}
		})
	}
}

func reencodeIndex(b []byte) ([]byte, error) {
	pubs, marks, err := DecodeIndex(b)
	return AppendIndex(nil, pubs, marks), err
}

func reencodeState(b []byte) ([]byte, error) {
	s, err := DecodeSubState(b)
	return AppendSubState(nil, s), err
}

func FuzzDecodeIndex(f *testing.F) {
	pubs, marks := someIndex()
	f.Add(AppendIndex(nil, pubs, marks))
	f.Add(AppendIndex(nil, nil, nil))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, in []byte) {
		if out, err := reencodeIndex(in); err == nil && !bytes.Equal(out, in) {
			t.Fatalf("accepted %x, which encodes as %x", in, out)
		}
	})
}

func FuzzDecodeSubState(f *testing.F) {
	f.Add(AppendSubState(nil, someState()))
	f.Add(AppendSubState(nil, lossyState()))
	f.Add(AppendSubState(nil, SubState{Watermark: NoWatermark}))
	f.Add([]byte{1, 0, 0, 0, 0, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, in []byte) {
		if out, err := reencodeState(in); err == nil && !bytes.Equal(out, in) {
			t.Fatalf("accepted %x, which encodes as %x", in, out)
		}
	})
}

func FuzzRecords(f *testing.F) {
	data, _ := build(someRecords())
	f.Add(data)
	f.Add([]byte{4, 0, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		rs, err := decodeRecords(in)
		if err != nil {
			return
		}
		if out, _ := build(rs); !bytes.Equal(out, in) {
			t.Fatalf("accepted %x, which encodes as %x", in, out)
		}
		if err := checkRecords(in, len(rs)); err != nil {
			t.Fatalf("what is read is refused when it is only passed over: %v", err)
		}
	})
}

func FuzzLoadCatalog(f *testing.F) {
	f.Add(someBus(f).AppendCatalog(nil))
	f.Add([]byte(`{"version":1,"visible":1,"topics":[{"id":1,"spec":{"name":"t","retention":{}},"next":[1],"first":[2],"bytes":[1]}]}`))
	f.Add([]byte(`{"version":1} x`))
	f.Fuzz(func(t *testing.T, in []byte) {
		load := func(in []byte) (*rig, error) {
			r := &rig{t: t, log: &memLog{}}
			r.Bus = New(Config{Now: fixedNow}, r.log)
			return r, r.LoadCatalog(in)
		}
		r, err := load(in)
		if err != nil {
			return
		}
		first := r.AppendCatalog(nil)
		again, err := load(first)
		if err != nil {
			t.Fatalf("what was loaded from %q encodes as %q, which is refused: %v", in, first, err)
		}
		if second := again.AppendCatalog(nil); !bytes.Equal(first, second) {
			t.Fatalf("%q and %q are not one encoding", first, second)
		}
		r.Pins() // whatever was accepted can be asked
		r.Stats()
		for id := range r.topics {
			for _, start := range []Start{{Earliest: true}, {Latest: true}, {At: 1}} {
				if st, err := r.Subscribe(1<<31, "new", id, start); err == nil {
					rd := r.NewReader(1<<31, id, st, func() {})
					_, _, _ = rd.Next(10)
					r.Unsubscribe(1 << 31)
				}
			}
		}
	})
}

func TestCatalogIsChecked(t *testing.T) {
	good := `{"version":1,"visible":9,"at":5,"topics":[{"id":1,"spec":{"name":"t","retention":{}},"next":[7],"first":[2],"bytes":[70]}],` +
		`"subs":[{"id":2,"name":"s","topic":1,"parts":[{"sealed":3,"durable":2,"marks":4,"base":0}]}],` +
		`"generations":[{"first":1,"at":1,"topics":{"1":{"Next":[2],"Bytes":[20],"Table":null}}}]}`
	load := func(s string) error { return New(Config{}, &memLog{}).LoadCatalog([]byte(s)) }
	if err := load(good); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`"version":1`, `"version":2`},
		{`"visible"`, `"visibel"`},
		{`"next":[7]`, `"next":[7,8]`},
		{`"next":[7]`, `"next":[1]`},
		{`"bytes":[70]`, `"bytes":[-1]`},
		{`"name":"t"`, `"name":""`},
		{`"durable":2`, `"durable":4`},
		{`"base":0`, `"base":71`},
		{`"topic":1`, `"topic":3`},
		{`"Next":[2]`, `"Next":[]`},
		{`"Next":[2]`, `"Next":[8]`},
		{`"Bytes":[20]`, `"Bytes":[71]`},
		{`"Table":null`, `"Table":[{"producer":2},{"producer":2}]`},
		{`}]}`, `}]} {}`},
	} {
		bad := string(bytes.Replace([]byte(good), []byte(change[0]), []byte(change[1]), 1))
		if bad == good {
			t.Fatalf("%s is not in the catalog", change[0])
		}
		if err := load(bad); err == nil {
			t.Errorf("%s for %s was accepted", change[1], change[0])
		}
	}
	b := New(Config{}, &memLog{})
	if err := b.Define(1, TopicSpec{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := b.LoadCatalog([]byte(good)); err == nil {
		t.Error("a catalog was loaded over topics")
	}
}

// TestCatalogRestores: a bus made from a catalog stands where the other did.
func TestCatalogRestores(t *testing.T) {
	was := someBus(t)
	is := &rig{t: t, log: was.log}
	is.Bus = New(Config{Now: fixedNow}, was.log)
	is.must(is.LoadCatalog(was.AppendCatalog(nil)))
	was.Passed(7, []SubState{{Partition: 1, Position: Position{Next: 3, Marks: 4}}}, true) // so is all that the catalog says
	if !reflect.DeepEqual(is.Pins(), was.Pins()) {
		t.Errorf("pins: %+v, were %+v", is.Pins(), was.Pins())
	}
	a, b := is.Stats(), was.Stats()
	for i := range b {
		for k := range b[i].Partitions {
			b[i].Partitions[k].Memory = 0 // that is in the log now
		}
	}
	ja, err1 := json.Marshal(a)
	jb, err2 := json.Marshal(b)
	if err1 != nil || err2 != nil || !bytes.Equal(ja, jb) {
		t.Errorf("stats:\n%s %v\nwere\n%s %v", ja, err1, jb, err2)
	}
	if w, full, fill := was.Full(2); w == "" {
		t.Error("the topic was not full: the test shows nothing")
	} else if w2, full2, fill2 := is.Full(2); w2 != w || full2 != full || fill2 != fill {
		t.Errorf("full: %q %v %f, was %q %v %f", w2, full2, fill2, w, full, fill)
	}
	if a, b := is.Written(1), was.Written(1); a != b || !a {
		t.Errorf("written: %v, was %v", a, b)
	}
	if a, b := is.visible.Load(), was.visible.Load(); a != b || a == 0 {
		t.Errorf("visible: %d, was %d", a, b)
	}
}

func fixedNow() time.Time { return time.UnixMilli(1_700_000_000_000) }

// someBus has topics, producers, subscriptions and generations of all kinds.
func someBus(t testing.TB) *rig {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "alerts", Partitions: 2, Retention: Retention{MaxBytes: 1 << 20, MaxAge: time.Hour}})
	r.define(2, TopicSpec{Name: "late", Retention: Retention{MaxBytes: KeepNothing}, Limit: 10, OnFull: Block})
	r.subscribe(7, 1, Start{Earliest: true})
	r.subscribe(8, 2, Start{Earliest: true})
	r.epoch([]Publication{pub(1, 0, "a", "b"), pub(1, 1, "c"), pub(2, 0, "a long one, for its limit")},
		Mark{Topic: 1, Producer: 3, Join: true}, Mark{Topic: 1, Producer: 4, Watermark: 900}, Mark{Topic: 2, Producer: 3, Idle: true})
	r.rotate()
	r.now = r.now.Add(time.Second)
	r.epoch([]Publication{pub(1, 1, "d", "e")}, Mark{Topic: 1, Producer: 3, Watermark: 1000}, Mark{Topic: 2, Producer: 3, Leave: true})
	r.Passed(7, []SubState{{Partition: 1, Position: Position{Next: 2, Marks: 2}}}, true)
	r.Passed(7, []SubState{{Partition: 1, Position: Position{Next: 3, Marks: 4}}}, false)
	r.durable()
	r.rotate()
	r.now = fixedNow()
	return r
}
