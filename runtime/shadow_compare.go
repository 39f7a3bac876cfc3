package runtime

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sidestream-dev/sidestream/bus"
)

// comparison compares two piles of records, whatever order they come in: what one side has given and the other has not yet is
// kept, the rest is counted. Two are equal that are of one output and have the same key, event time and value; of JSON it does
// not matter how it is written, nor digits of a fraction behind the twelfth, since a sum of such depends on the order of what it
// sums.
type comparison struct {
	open   map[[16]byte]*waiting
	show   int
	most   int   // in open
	apart  int64 // differences up to this event time are apart; NoTime is none
	bytes  int   // of records in open
	forgot int64
	shown  []ShadowDifference
}

// waiting is a record that one side has n times more than the other: the job where n is positive.
type waiting struct {
	out    *shadowOut
	n      int64
	seq    int64 // where the job gave it
	time   int64
	record *bus.Record // nil where there are too many
}

func newComparison(show, most int, apart int64) *comparison {
	return &comparison{open: map[[16]byte]*waiting{}, show: show, most: most, apart: apart, shown: []ShadowDifference{}}
}

func identity(o *shadowOut, r bus.Record) (id [16]byte) {
	b := binary.AppendUvarint(nil, uint64(len(o.Output)))
	b = append(b, o.Output...)
	b = binary.AppendVarint(b, r.Time)
	b = binary.AppendUvarint(b, uint64(len(r.Key)))
	b = append(b, r.Key...)
	b = appendSame(b, r.Value)
	sum := sha256.Sum256(b)
	copy(id[:], sum[:])
	return id
}

// appendSame writes a value so that equal ones are the same.
func appendSame(dst, b []byte) []byte {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if b == nil || dec.Decode(&v) != nil || dec.More() {
		return append(append(dst, 0), b...)
	}
	return appendValue(dst, v)
}

func appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case map[string]any:
		dst = append(dst, '{')
		for _, name := range slices.Sorted(maps.Keys(v)) {
			dst = append(strconv.AppendQuote(dst, name), ':')
			dst = append(appendValue(dst, v[name]), ',')
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for _, e := range v {
			dst = append(appendValue(dst, e), ',')
		}
		return append(dst, ']')
	case json.Number:
		s := v.String()
		if !strings.ContainsAny(s, ".eE") {
			return append(dst, s...)
		}
		f, err := v.Float64()
		if err != nil {
			return append(dst, s...)
		}
		return strconv.AppendFloat(dst, f, 'g', 12, 64) // 3.0 is 3
	case string:
		return strconv.AppendQuote(dst, v)
	}
	return fmt.Append(dst, v)
}

// add counts a record: by is 1 where the job gave it, -1 where the definition did. It reports whether the other side had it.
func (c *comparison) add(o *shadowOut, by, seq int64, r bus.Record) (matched bool, err error) {
	id := identity(o, r)
	w := c.open[id]
	if w == nil {
		if len(c.open) >= c.most {
			return false, fmt.Errorf("more than %d records that one side gave have none on the other side: choose a shorter range", c.most)
		}
		w = &waiting{out: o, time: r.Time}
		if n := len(r.Key) + len(r.Value) + 64; c.show > 0 && c.bytes+n <= shadowShownBytes {
			w.record = keepRecord(r)
			c.bytes += n
		}
		c.open[id] = w
	}
	matched = w.n*by < 0
	w.n += by
	if by > 0 {
		w.seq = seq
	}
	if matched {
		o.Equal++
	}
	if w.n == 0 {
		if w.record != nil {
			c.bytes -= len(w.record.Key) + len(w.record.Value) + 64
		}
		delete(c.open, id)
	}
	return matched, nil
}

// waits reports whether the definition has given a record that the job has not yet.
func (c *comparison) waits(o *shadowOut, r bus.Record) bool {
	w := c.open[identity(o, r)]
	return w != nil && w.n < 0
}

// close tells each difference to judge, which says whether it is apart, and chooses which are shown: the first by event time.
func (c *comparison) close(judge func(o *shadowOut, n, seq int64, apart bool) bool) {
	type side struct {
		*waiting
		apart bool
	}
	var kept []side
	for _, w := range c.open {
		apart := judge(w.out, w.n, w.seq, c.apart != bus.NoTime && w.time <= c.apart)
		if w.record == nil {
			c.forgot++
			continue
		}
		kept = append(kept, side{w, apart})
	}
	if c.show == 0 {
		c.forgot = 0
	}
	slices.SortFunc(kept, func(a, b side) int {
		apart := 0
		if a.apart != b.apart {
			if apart = -1; a.apart {
				apart = 1
			}
		}
		return cmp.Or(apart, cmp.Compare(a.time, b.time), strings.Compare(a.out.Output, b.out.Output), bytes.Compare(a.record.Key, b.record.Key),
			cmp.Compare(b.n, a.n), bytes.Compare(a.record.Value, b.record.Value))
	})
	used := make([]bool, len(kept))
	for i := 0; i < len(kept) && len(c.shown) < c.show; i++ {
		if used[i] {
			continue
		}
		d := difference(kept[i].waiting)
		d.Apart = kept[i].apart
		for k := i + 1; k < len(kept) && kept[k].apart == d.Apart && sameSlot(kept[i].waiting, kept[k].waiting); k++ {
			if !used[k] && kept[i].n > 0 && kept[k].n < 0 {
				other := difference(kept[k].waiting)
				d.Kind, d.Gave, used[k] = "differs", other.Gave, true
				break
			}
		}
		c.shown = append(c.shown, d)
	}
}

func sameSlot(a, b *waiting) bool {
	return a.out == b.out && a.time == b.time && bytes.Equal(a.record.Key, b.record.Key)
}

func difference(w *waiting) ShadowDifference {
	r := shown("", 0, 0, *w.record)
	d := ShadowDifference{Output: w.out.Output, Kind: "missing", Key: r.Key, Time: r.Time}
	if w.n > 0 {
		d.Given = r.Value
	} else {
		d.Kind, d.Gave = "extra", r.Value
	}
	return d
}
