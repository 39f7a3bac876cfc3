package checkpoint

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/wal"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares b with testdata/name, which holds it in hexadecimal.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(hex.Dump(b)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.Dump(b); got != string(want) {
		t.Errorf("%s: the encoding has changed; data directories have the old one\n got\n%swant\n%s", name, got, want)
	}
}

func fullHeader() Header {
	return Header{
		Job: 3, Attempt: 2, Epoch: 300, Ended: true,
		Splits: []SplitState{
			{Step: "source", Split: "readings/a.jsonl", Topic: "readings/a.jsonl", Position: []byte("17"), Watermark: 1700000000123},
			{Step: "source", Split: "readings-1", Topic: "readings", Partition: 1, Position: []byte{}, Watermark: 1700000000100, Idle: true},
			{Step: "other", Split: "x", Topic: "", Partition: -1, Watermark: math.MinInt64},
			{Step: "other", Split: "y", Topic: "y", Partition: math.MaxInt32, Watermark: math.MaxInt64, Ended: true},
		},
		Subs:  []SubPosition{{Sub: 9, Partition: 4, State: []byte{1, 2, 3}}, {Sub: math.MaxUint32, Partition: 127}},
		Steps: []StepState{{Step: "window", Watermark: 1700000000099}, {Step: "join", Watermark: math.MinInt64}},
		Parts: []wal.LSN{1000, 1003, 1004},
		Extra: map[string][]byte{"": {}, "aggregate": []byte("v"), "b": {0}},
	}
}

func TestHeaderGolden(t *testing.T) {
	golden(t, "header-v1.hex", AppendHeader(nil, fullHeader()))
	golden(t, "header-empty-v1.hex", AppendHeader(nil, Header{}))
}

func TestHeaderRoundTrip(t *testing.T) {
	for _, h := range []Header{fullHeader(), {}, {Job: math.MaxUint32, Attempt: math.MaxUint32, Epoch: math.MaxUint64}} {
		b := AppendHeader([]byte("before"), h)
		got, err := DecodeHeader(b[len("before"):])
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, h) {
			t.Errorf("got  %+v\nwant %+v", got, h)
		}
	}
}

func TestHeaderTruncatedAndFlipped(t *testing.T) {
	b := AppendHeader(nil, fullHeader())
	for i := range b {
		_, err := DecodeHeader(b[:i])
		var damage *DecodeError
		if !errors.As(err, &damage) || damage.Offset > i {
			t.Fatalf("the first %d bytes: %v", i, err)
		}
	}
	if _, err := DecodeHeader(append(slices.Clone(b), 0)); !errors.Is(err, errRest) {
		t.Errorf("a byte behind the end: %v", err)
	}
	if _, err := DecodeHeader([]byte{headerVersion + 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}); !errors.Is(err, errVersion) {
		t.Errorf("another version: %v", err)
	}
	if _, err := DecodeHeader([]byte{headerVersion, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0}); !errors.Is(err, errVarint) {
		t.Errorf("a number in two bytes that fits one: %v", err)
	}
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(AppendHeader(nil, fullHeader()))
	f.Add(AppendHeader(nil, Header{}))
	f.Add([]byte{headerVersion, 0, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f}) // a length far past the input
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := DecodeHeader(in)
		if err != nil {
			return
		}
		if again := AppendHeader(nil, h); !bytes.Equal(again, in) {
			t.Fatalf("accepted %x, which encodes as %x", in, again)
		}
	})
}

// TestMerge folds random epochs and compares with maps that take every entry.
func TestMerge(t *testing.T) {
	seeds(t, 50, func(t *testing.T, r *rand.Rand) {
		var into Header
		splits, subs, steps, extra := map[[2]string]SplitState{}, map[[2]int]SubPosition{}, map[string]StepState{}, map[string]string{}
		for e := Epoch(1); e < 20; e++ {
			h := Header{Job: 1, Attempt: uint32(e / 7), Epoch: e, Ended: e == 19, Parts: []wal.LSN{wal.LSN(e)}, Extra: map[string][]byte{}}
			for range r.IntN(6) {
				name := func() string { return string(rune('a' + r.IntN(5))) }
				s := SplitState{Step: name(), Split: name(), Watermark: r.Int64()}
				h.Splits, splits[[2]string{s.Step, s.Split}] = append(h.Splits, s), s
				p := SubPosition{Sub: r.Uint32N(4), Partition: r.IntN(3), State: []byte{byte(e)}}
				h.Subs, subs[[2]int{int(p.Sub), p.Partition}] = append(h.Subs, p), p
				st := StepState{Step: name(), Watermark: r.Int64()}
				h.Steps, steps[st.Step] = append(h.Steps, st), st
				x, v := name(), strings.Repeat("v", r.IntN(3))
				if h.Extra[x], extra[x] = []byte(v), v; v == "" {
					delete(extra, x)
				}
			}
			Merge(&into, h)
		}
		if into.Epoch != 19 || into.Attempt != 2 || !into.Ended || into.Parts != nil {
			t.Errorf("merged %+v", into)
		}
		if len(into.Splits) != len(splits) || len(into.Subs) != len(subs) || len(into.Steps) != len(steps) || len(into.Extra) != len(extra) {
			t.Fatalf("merged %+v", into)
		}
		for i, s := range into.Splits {
			if !reflect.DeepEqual(s, splits[[2]string{s.Step, s.Split}]) || i > 0 && compareSplits(into.Splits[i-1], s) >= 0 {
				t.Errorf("split %+v", s)
			}
		}
		for _, s := range into.Subs {
			if !reflect.DeepEqual(s, subs[[2]int{int(s.Sub), s.Partition}]) {
				t.Errorf("subscription %+v", s)
			}
		}
		for _, s := range into.Steps {
			if s != steps[s.Step] {
				t.Errorf("step %+v", s)
			}
		}
		for x, v := range into.Extra {
			if string(v) != extra[x] {
				t.Errorf("extra %q = %q", x, v)
			}
		}
	})
}
