package value

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// sample has the shape of the five-plus-one workload.
const sample = `{"device":"device-004217","kind":"temperature","ts":1767225600123,"reading":42.731,"seq":918273,"site":"plant-3",` +
	`"line":17,"fw":"2.14.7","battery":87.5,"lat":52.52001,"lon":13.40495,"tags":["floor-2","hall-b"],"status":"ok","note":"within limits"}`

func paths(dotted ...string) [][]string {
	var out [][]string
	for _, d := range dotted {
		out = append(out, strings.Split(d, "."))
	}
	return out
}

func mustDecode(t testing.TB, d *Decoder, s string) Row {
	t.Helper()
	r, err := d.Decode([]byte(s), nil)
	if err != nil {
		t.Fatalf("Decode(%s): %v", s, err)
	}
	return r
}

func text(t testing.TB, v Value) string {
	t.Helper()
	b, err := AppendJSON(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDecodeSlots(t *testing.T) {
	tests := []struct{ name, in, path, want string }{
		{"string", `{"a":"x"}`, "a", `"x"`},
		{"int", `{"a":12}`, "a", `12`},
		{"negative int", `{"a":-12}`, "a", `-12`},
		{"float", `{"a":12.5}`, "a", `12.5`},
		{"a float stays one", `{"a":5.0}`, "a", `5.0`},
		{"exponent is a float", `{"a":1e2}`, "a", `100.0`},
		{"largest int", `{"a":9223372036854775807}`, "a", `9223372036854775807`},
		{"past the largest int", `{"a":9223372036854775808}`, "a", `9223372036854776000.0`},
		{"bool", `{"a":true,"b":false}`, "b", `false`},
		{"null", `{"a":null}`, "a", `null`},
		{"missing", `{"b":1}`, "a", `null`},
		{"nested", `{"a":{"b":{"c":3}}}`, "a.b.c", `3`},
		{"through a scalar", `{"a":7}`, "a.b", `null`},
		{"list stays its bytes", `{"a":[1, 2]}`, "a", `[1, 2]`},
		{"last duplicate wins", `{"a":1,"a":2}`, "a", `2`},
		{"a duplicate clears what was below", `{"a":{"b":1},"a":{"c":2}}`, "a.b", `null`},
		{"a scalar duplicate clears what was below", `{"a":{"b":1},"a":2}`, "a.b", `null`},
		{"escaped name", `{"\u0061":1}`, "a", `1`},
		{"escapes", `{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}`, "a", `"\"\\/\u0008\u000c\n\r\té😀"`},
		{"lone surrogate", `{"a":"\ud800x"}`, "a", `"�x"`},
		{"spaces", " {\t\"a\" : [ ] , \"b\" : 2 } ", "b", `2`},
		{"no object", `[1]`, "a", `null`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDecoder(paths(tt.path))
			for range 2 { // the second time by what was learned
				r := mustDecode(t, d, tt.in)
				if got := text(t, *r.Slot(0)); got != tt.want {
					t.Errorf("%s of %s = %s, want %s", tt.path, tt.in, got, tt.want)
				}
			}
			r := mustDecode(t, NewDecoder(nil), tt.in)
			if got := text(t, r.Lookup(strings.Split(tt.path, "."), nil)); got != tt.want {
				t.Errorf("Lookup %s of %s = %s, want %s", tt.path, tt.in, got, tt.want)
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	tests := []struct{ in, want string }{
		{``, `not JSON at byte 0: the text ends too early`},
		{`{`, `not JSON at byte 1: the text ends too early`},
		{`{"a":1`, `not JSON at byte 6: the text ends too early`},
		{`{"a":1,}`, `not JSON at byte 7: unexpected '}'`},
		{`{"a" 1}`, `not JSON at byte 5: unexpected '1'`},
		{`{"a":01}`, `not JSON at byte 5: not a number, or one out of range`},
		{`{"z":01}`, `not JSON at byte 5: not a number, or one out of range`},
		{`{"z":1e999}`, `not JSON at byte 5: not a number, or one out of range`},
		{`{"z":[1,{"y":tru}]}`, `not JSON at byte 13: unexpected 't'`},
		{`{"z":"\x"}`, `not JSON at byte 6: unknown escape`},
		{"{\"z\":\"\x01\"}", `not JSON at byte 6: unexpected control character 0x01`},
		{"{\"z\":\"\xff\"}", `not JSON at byte 6: a string that is not UTF-8`},
		{`{"a":1} x`, `not JSON at byte 8: unexpected 'x'`},
		{`{a:1}`, `not JSON at byte 1: unexpected 'a'`},
		{strings.Repeat("[", 65), `not JSON at byte 64: nested deeper than 64`},
	}
	for _, tt := range tests {
		d := NewDecoder(paths("a"))
		_, err := d.Decode([]byte(tt.in), nil)
		if err == nil || err.Error() != tt.want {
			t.Errorf("Decode(%q) = %v, want %s", tt.in, err, tt.want)
		}
	}
}

func TestLineBreaksAreCompacted(t *testing.T) {
	r := mustDecode(t, NewDecoder(paths("a")), "{\n \"a\"\n:\t[1,\r\n2], \"b\":\"x y\"}")
	got, _ := r.AppendJSON(nil)
	if want := `{"a":[1,2],"b":"x y"}`; string(got) != want {
		t.Errorf("row = %s, want %s", got, want)
	}
	if got := text(t, *r.Slot(0)); got != `[1,2]` {
		t.Errorf("slot = %s", got)
	}
}

func TestFieldsOutOfOrder(t *testing.T) {
	d := NewDecoder(paths("a", "c"))
	for _, in := range []string{`{"a":1,"b":2,"c":3}`, `{"a":1,"c":3}`, `{"c":3,"b":2,"a":1}`, `{"a":1,"b":2,"c":3}`} {
		r := mustDecode(t, d, in)
		if a, c := r.Slot(0).Int(), r.Slot(1).Int(); a != 1 || c != 3 {
			t.Errorf("%s: a=%d c=%d", in, a, c)
		}
	}
}

func TestSet(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"appended", `{"x":1}`, `{"x":1,"a":7,"b":"q"}`},
		{"in place", `{"a":1,"x": 2}`, `{"a":7,"x": 2,"b":"q"}`},
		{"duplicates go", `{"a":1,"x":2,"a":3}`, `{"a":7,"x":2,"b":"q"}`},
		{"empty", `{}`, `{"a":7,"b":"q"}`},
	}
	names, vals := []string{"a", "b"}, []Value{OfInt(7), OfString("q")}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := mustDecode(t, NewDecoder(paths("x")), tt.in)
			whole := OfValue(r.Value(nil), nil)
			for _, in := range []Row{r, whole} {
				out, err := in.Set(in.Shape().Over(names), names, vals, nil)
				if err != nil {
					t.Fatal(err)
				}
				got, err := out.AppendJSON(nil)
				if err != nil {
					t.Fatal(err)
				}
				if back, _ := Parse(got, nil); !Equal(back, out.Value(nil)) {
					t.Errorf("row %s is not its value", got)
				}
				if in.Shape() == r.Shape() && string(got) != tt.want {
					t.Errorf("row = %s, want %s", got, tt.want)
				}
				if got := out.Lookup([]string{"a"}, nil); got.Int() != 7 {
					t.Errorf("a = %v", text(t, got))
				}
			}
		})
	}
	r := mustDecode(t, NewDecoder(nil), `[1]`)
	if _, err := r.Set(r.Shape().Over(names), names, vals, nil); !errors.Is(err, ErrNotObject) {
		t.Errorf("Set on a list: %v", err)
	}
}

func TestSetTwice(t *testing.T) {
	r := mustDecode(t, NewDecoder(paths("a")), `{"a":1}`)
	one, two := []string{"b"}, []string{"a", "b", "c"}
	o1 := r.Shape().Over(one)
	r, _ = r.Set(o1, one, []Value{OfInt(2)}, nil)
	r, _ = r.Set(o1.Over(two), two, []Value{OfInt(3), OfInt(4), OfInt(5)}, nil)
	if got, _ := r.AppendJSON(nil); string(got) != `{"a":3,"b":4,"c":5}` {
		t.Errorf("row = %s", got)
	}
	o := OfFields(NewObjectShape([]string{"a"}), []Value{OfInt(1)})
	o, _ = o.Set(o.Shape().Over(two), two, []Value{OfInt(3), OfInt(4), OfInt(5)}, nil)
	if got, _ := o.AppendJSON(nil); string(got) != `{"a":3,"b":4,"c":5}` {
		t.Errorf("object row = %s", got)
	}
}

func TestKeys(t *testing.T) {
	tests := []struct{ in, want string }{
		{`"a\"b"`, `"a\"b"`}, {`1`, `1`}, {`1.0`, `1`}, {`-0.0`, `0`}, {`1e3`, `1000`}, {`1.5`, `1.5`}, {`"1"`, `"1"`},
		{`9223372036854775808`, `9223372036854776000.0`}, {`true`, `true`}, {`[1.0, "x"]`, `[1,"x"]`},
		{`{"b": 1.0, "a": {"d":null,"c":2}}`, `{"a":{"c":2,"d":null},"b":1}`},
	}
	for _, tt := range tests {
		v, err := Parse([]byte(tt.in), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := AppendKey(nil, v)
		if err != nil || string(got) != tt.want {
			t.Errorf("AppendKey(%s) = %s, %v; want %s", tt.in, got, err, tt.want)
		}
		if back := DecodeKey(got, nil); !Equal(back, v) {
			t.Errorf("DecodeKey(%s) = %s", got, text(t, back))
		}
	}
	if _, err := AppendKey(nil, Value{}); !errors.Is(err, ErrNilKey) {
		t.Errorf("nil key: %v", err)
	}
	if _, err := AppendKey(nil, OfFloat(math.NaN())); !errors.Is(err, ErrNotFinite) {
		t.Errorf("NaN key: %v", err)
	}
	for in, want := range map[string]string{`"a"`: `a`, `12`: `12`, `{"a":1}`: `{"a":1}`, `raw`: `raw`} {
		if got := KeyText(nil, []byte(in)); string(got) != want {
			t.Errorf("KeyText(%s) = %s, want %s", in, got, want)
		}
	}
	if got := KeyJSON(nil, []byte(`raw`)); string(got) != `"raw"` {
		t.Errorf("KeyJSON = %s", got)
	}
}

func TestCompareNumbersExactly(t *testing.T) {
	big := OfInt(1<<53 + 1)
	for _, tt := range []struct {
		a, b Value
		want int
	}{
		{OfInt(1), OfFloat(1), 0}, {big, OfFloat(1 << 53), 1}, {OfFloat(1 << 53), big, -1},
		{OfInt(math.MaxInt64), OfFloat(1 << 63), -1}, {OfInt(math.MinInt64), OfFloat(-(1 << 63)), 0},
		{OfInt(-5), OfFloat(-5.5), 1}, {OfInt(math.MinInt64), OfFloat(-1e300), 1},
	} {
		if got, ok := Compare(tt.a, tt.b); got != tt.want || !ok {
			t.Errorf("Compare(%s, %s) = %d, want %d", text(t, tt.a), text(t, tt.b), got, tt.want)
		}
	}
}

func TestTimes(t *testing.T) {
	b, err := AppendTime(nil, 1767225600123)
	if err != nil || string(b) != "2026-01-01T00:00:00.123Z" {
		t.Errorf("AppendTime = %s, %v", b, err)
	}
	if ms, err := ParseTime("2026-01-01T01:00:00.1239+01:00"); err != nil || ms != 1767225600123 {
		t.Errorf("ParseTime = %d, %v", ms, err)
	}
	if _, err := AppendTime(nil, math.MaxInt64); !errors.Is(err, ErrTime) {
		t.Errorf("AppendTime of a far time: %v", err)
	}
}

func TestLines(t *testing.T) {
	l, err := DecodeLine([]byte(`a "line"`))
	if got, _ := l.AppendJSON(nil); err != nil || string(got) != `"a \"line\""` {
		t.Errorf("line = %s, %v", got, err)
	}
	if _, err := DecodeLine([]byte("\xff")); err != ErrNotUTF8 {
		t.Errorf("a line that is not UTF-8: %v", err)
	}
}

func TestArenaRelease(t *testing.T) {
	var a Arena
	d := NewDecoder(paths("device", "reading"))
	keep, err := d.Decode([]byte(sample), &a)
	if err != nil {
		t.Fatal(err)
	}
	in := []byte(sample)
	if n := testing.AllocsPerRun(1000, func() {
		m := a.Mark()
		if _, err := d.Decode(in, &a); err != nil {
			t.Fatal(err)
		}
		a.Release(m)
	}); n != 0 {
		t.Errorf("%v allocations for a dropped row", n)
	}
	if !keep.Slot(0).IsText("device-004217") {
		t.Error("a kept row changed")
	}
}

func TestClone(t *testing.T) {
	b := []byte(`{"a":"x","b":["y"]}`)
	r, err := NewDecoder(paths("a", "b")).Decode(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, d := r.Clone(), r.Detach(&Arena{})
	clear(b)
	for _, c := range []Row{c, d} {
		if got, _ := c.AppendJSON(nil); string(got) != `{"a":"x","b":["y"]}` || !c.Slot(0).IsText("x") || text(t, *c.Slot(1)) != `["y"]` {
			t.Errorf("copy = %s", got)
		}
	}
}

// same reports whether v is what encoding/json read.
func same(v Value, want any) bool {
	switch w := want.(type) {
	case nil:
		return v.IsNil()
	case bool:
		return v.Kind() == Bool && v.Bool() == w
	case string:
		return v.IsText(w)
	case json.Number:
		if i, err := w.Int64(); err == nil {
			return v.Kind() == Int && v.Int() == i
		}
		f, err := w.Float64()
		return err == nil && v.Kind() == Float && v.Float() == f
	case []any:
		i, ok := 0, v.Kind() == List && v.Len() == len(w)
		v.Elems(nil, func(e Value) bool {
			ok = ok && same(e, w[i])
			i++
			return ok
		})
		return ok
	case map[string]any:
		ok := v.Kind() == Object && v.Len() == len(w)
		v.Fields(nil, func(name string, f Value) bool {
			x, there := w[name]
			ok = ok && there && same(f, x) && same(v.Member(name, nil), x)
			return ok
		})
		return ok
	}
	return false
}

// compare holds our decoding of in against encoding/json's.
func compare(t *testing.T, d *Decoder, in []byte) {
	t.Helper()
	r, err := d.Decode(in, nil)
	if err != nil {
		if json.Valid(in) && utf8.Valid(in) && skipDepthMax(in) <= MaxDepth && inRange(in) {
			t.Fatalf("%q refused: %v", in, err)
		}
		return
	}
	dec := json.NewDecoder(bytes.NewReader(in))
	dec.UseNumber()
	var want any
	if err := dec.Decode(&want); err != nil || !json.Valid(in) {
		t.Fatalf("%q accepted, encoding/json says %v", in, err)
	}
	v := r.Value(nil)
	if !same(v, want) {
		t.Fatalf("%q read as %s, want %v", in, text(t, v), want)
	}
	for i, p := range d.shape.paths {
		w := want
		for _, name := range p {
			m, _ := w.(map[string]any)
			w = m[name]
		}
		if !same(*r.Slot(i), w) {
			t.Fatalf("%q: slot %v = %s, want %v", in, p, text(t, *r.Slot(i)), w)
		}
	}
	enc := text(t, v.decodedDeep())
	back, err := Parse([]byte(enc), nil)
	if err != nil || text(t, back.decodedDeep()) != enc || !Equal(back, v) {
		t.Fatalf("%q encodes as %s, which reads back as %v, %v", in, enc, text(t, back), err)
	}
	if v.IsNil() {
		return
	}
	k1, _ := AppendKey(nil, v)
	if k2, _ := AppendKey(nil, back.decodedDeep()); !bytes.Equal(k1, k2) || !Equal(DecodeKey(k1, nil), v) {
		t.Fatalf("%q has the keys %s and %s", in, k1, k2)
	}
}

func (v Value) decodedDeep() Value {
	switch v = v.decoded(nil); v.k {
	case List:
		var vals []Value
		for _, e := range v.list() {
			vals = append(vals, e.decodedDeep())
		}
		return OfList(vals)
	case Object:
		o := v.object()
		vals := make([]Value, len(o.vals))
		for i := range vals {
			vals[i] = o.vals[i].decodedDeep()
		}
		return OfObject(o.names, vals)
	}
	return v
}

func skipDepthMax(b []byte) int {
	most, n, inString := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch {
		case inString && b[i] == '\\':
			i++
		case b[i] == '"':
			inString = !inString
		case !inString && (b[i] == '[' || b[i] == '{'):
			n++
			most = max(most, n)
		case !inString && (b[i] == ']' || b[i] == '}'):
			n--
		}
	}
	return most
}

func inRange(b []byte) bool {
	var v any
	return json.Unmarshal(b, &v) == nil
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(sample))
	for _, s := range []string{`{"a":{"b":1.5e3,"b":[{}]},"c":"\ud83d\ude00"}`, `{"c": -0, "a":{"b":"é"}}`, "[1,\n2]", `"\u12"`, `{"a":1e400}`, `123456789012345678901234567890`} {
		f.Add([]byte(s))
	}
	d := NewDecoder(paths("a", "a.b", "a.b.c", "c"))
	f.Fuzz(func(t *testing.T, in []byte) { compare(t, d, in) })
}

// Every text that differs from a good one in one byte is read as encoding/json reads it.
func TestMutations(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	const alphabet = "\"\\{}[],:0.eE- \ttfn\x01\xc3a"
	d := NewDecoder(paths("device", "tags", "note", "reading"))
	for n := range 20000 {
		b := []byte(sample)
		for range 1 + n%2 {
			b[rnd.IntN(len(b))] = alphabet[rnd.IntN(len(alphabet))]
		}
		compare(t, d, b)
	}
	if t.Failed() {
		t.Logf("seed %d", seed)
	}
}

func TestNumbersAgainstStrconv(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	d := NewDecoder(paths("a"))
	for range 20000 {
		f := math.Float64frombits(rnd.Uint64())
		if math.IsNaN(f) || math.IsInf(f, 0) {
			continue
		}
		b := append(append([]byte(`{"a":`), appendFloat(nil, f)...), '}')
		r, err := d.Decode(b, nil)
		if err != nil || math.Float64bits(r.Slot(0).Float()) != math.Float64bits(f) || r.Slot(0).Kind() != Float {
			t.Fatalf("%s: %v", b, err)
		}
	}
}

func TestKeyGolden(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "keys.golden"))
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, in := range []string{`"sensor-1"`, `1`, `1.5`, `"é\n"`, `{"site":"a","line":2.0}`, `[true,null]`} {
		v, err := Parse([]byte(in), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err = AppendKey(got, v); err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
	}
	if !bytes.Equal(got, want) {
		t.Errorf("keys are\n%swant\n%s", got, want)
	}
}

func BenchmarkDecode(b *testing.B) {
	in := []byte(sample)
	b.Run("fields=4,dropped", func(b *testing.B) { // as a filter leaves it
		d, a := NewDecoder(paths("device", "kind", "ts", "reading")), &Arena{}
		b.ReportAllocs()
		for b.Loop() {
			m := a.Mark()
			if _, err := d.Decode(in, a); err != nil {
				b.Fatal(err)
			}
			a.Release(m)
		}
	})
	for _, bb := range []struct {
		name  string
		paths [][]string
	}{{"fields=0", nil}, {"fields=4", paths("device", "kind", "ts", "reading")}, {"fields=14", paths("device", "kind", "ts", "reading", "seq", "site", "line", "fw", "battery", "lat", "lon", "tags", "status", "note")}} {
		b.Run(bb.name, func(b *testing.B) {
			d := NewDecoder(bb.paths)
			a := &Arena{}
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Decode(in, a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendKey(b *testing.B) {
	v := OfString("device-004217")
	var dst []byte
	for b.Loop() {
		dst, _ = AppendKey(dst[:0], v)
	}
}

// fieldScan is what one writes by hand for this one record: it looks at every byte once, checks nothing and knows the
// four fields. It is the measure for BenchmarkDecode.
func fieldScan(b []byte) (device, kind []byte, ts int64, reading float64) {
	for i := 1; i < len(b); {
		i++
		start := i
		for b[i] != '"' {
			i++
		}
		name := b[start:i]
		i += 2
		vs := i
		switch {
		case b[i] == '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			i++
		case b[i] == '[':
			for b[i] != ']' {
				i++
			}
			i++
		default:
			for b[i] != ',' && b[i] != '}' {
				i++
			}
		}
		v := b[vs:i]
		switch string(name) {
		case "device":
			device = v[1 : len(v)-1]
		case "kind":
			kind = v[1 : len(v)-1]
		case "ts":
			for _, c := range v {
				ts = ts*10 + int64(c-'0')
			}
		case "reading":
			reading, _ = strconv.ParseFloat(string(v), 64)
		}
		i++
	}
	return
}

func BenchmarkFieldScan(b *testing.B) {
	in := []byte(sample)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		fieldScan(in)
	}
}
