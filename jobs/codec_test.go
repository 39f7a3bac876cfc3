package jobs_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

type (
	deviceID string
	place    struct {
		Zone string `json:"zone"`
		City deviceID
		N    int32 `json:"n"`
	}
	nested struct {
		Z place `json:"z"`
		A float64
	}
	slow struct {
		B []int          `json:"b,omitempty"`
		A map[string]any `json:"a"`
	}
)

func appendKey[K any](k K) string {
	b, err := jobs.NewKeyCodec[K]().Append(nil, k)
	if err != nil {
		return "error: " + err.Error()
	}
	back, err := jobs.NewKeyCodec[K]().Decode(b)
	if err != nil || !reflect.DeepEqual(back, k) {
		return fmt.Sprintf("%s, which reads back as %v, %v", b, back, err)
	}
	return string(b)
}

func TestKeysAreCanonicalJSON(t *testing.T) {
	tests := []struct{ name, got, want string }{
		{"string", appendKey("a"), `"a"`},
		{"empty string", appendKey(""), `""`},
		{"escapes", appendKey("\"\\\n\r\t\x00\x1f/<é€😀"), `"\"\\\n\r\t\u0000\u001f/<é€😀"`},
		{"named string", appendKey(deviceID("x")), `"x"`},
		{"int", appendKey(-5), `-5`},
		{"int64", appendKey(int64(math.MinInt64)), `-9223372036854775808`},
		{"uint16", appendKey(uint16(7)), `7`},
		{"bool", appendKey(true), `true`},
		{"integral float", appendKey(5.0), `5`},
		{"float", appendKey(0.1), `0.1`},
		{"small float", appendKey(1e-7), `1e-07`},
		{"float beyond int64", appendKey(1e19), `10000000000000000000.0`},
		{"large float", appendKey(1e300), `1e+300`},
		{"struct, names sorted", appendKey(place{"z", "c", 3}), `{"City":"c","n":3,"zone":"z"}`},
		{"struct in struct", appendKey(nested{place{"z", "c", 3}, 1}), `{"A":1,"z":{"City":"c","n":3,"zone":"z"}}`},
		{"the slow way", appendKey(slow{A: map[string]any{"y": "1", "x": []any{true, nil}}}), `{"a":{"x":[true,null],"y":"1"}}`},
		{"time", appendKey(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), `"2026-01-02T03:04:05Z"`},
		{"array", appendKey([2]float64{1, 2.5}), `[1,2.5]`},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, tt.got, tt.want)
		}
	}
}

func TestKeysThatAreNone(t *testing.T) {
	check := func(name string, err error) {
		if !errors.Is(err, jobs.ErrKey) {
			t.Errorf("%s: error %v, want ErrKey", name, err)
		}
	}
	_, err := jobs.NewKeyCodec[float64]().Append(nil, math.NaN())
	check("NaN", err)
	_, err = jobs.NewKeyCodec[uint64]().Append(nil, math.MaxUint64)
	check("beyond int64", err)
	_, err = jobs.NewKeyCodec[[1]uint64]().Append(nil, [1]uint64{math.MaxUint64})
	check("beyond int64, the slow way", err)
	_, err = jobs.NewKeyCodec[*string]().Append(nil, nil)
	check("nil", err)
	if _, err := jobs.NewKeyCodec[string]().Decode([]byte("5")); err == nil {
		t.Error("a number read as a string key")
	}
	if _, err := jobs.NewKeyCodec[int]().Decode([]byte(`"5"`)); err == nil {
		t.Error("a string read as a number key")
	}
}

// A job in YAML and one in Go must mean the same by a key.
func TestKeysAreThoseOfYAML(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	same := func(go1 []byte, err error, v value.Value) {
		t.Helper()
		yaml, errYAML := value.AppendKey(nil, v)
		if (err == nil) != (errYAML == nil) || err == nil && !bytes.Equal(go1, yaml) {
			t.Fatalf("seed %d: Go encodes %s (%v), YAML %s (%v)", seed, go1, err, yaml, errYAML)
		}
	}
	s, n, f, st := jobs.NewKeyCodec[string](), jobs.NewKeyCodec[int64](), jobs.NewKeyCodec[float64](), jobs.NewKeyCodec[place]()
	for range 20000 {
		raw := make([]byte, rng.IntN(12))
		for i := range raw {
			raw[i] = byte(rng.Uint32() >> (rng.IntN(2) * 25))
		}
		text := string(raw)
		b, err := s.Append(nil, text)
		same(b, err, value.OfString(text))
		num := int64(rng.Uint64()) >> rng.IntN(64)
		b, err = n.Append(nil, num)
		same(b, err, value.OfInt(num))
		fl := math.Float64frombits(rng.Uint64())
		if rng.IntN(2) == 0 {
			fl = float64(num) / float64(int64(1)<<rng.IntN(10))
		}
		b, err = f.Append(nil, fl)
		same(b, err, value.OfFloat(fl))
		b, err = st.Append(nil, place{text, "c", int32(num)})
		same(b, err, value.OfObject([]string{"zone", "City", "n"},
			[]value.Value{value.OfString(text), value.OfString("c"), value.OfInt(int64(int32(num)))}))
	}
}

type tree struct {
	Name string
	Kids []*tree
}

type everything struct {
	B    bool
	I    int
	I8   int8
	U16  uint16
	F32  float32
	F    float64
	S    string
	L    []string
	A    [2]int32
	M    map[string]int
	P    *int64
	T    time.Time
	Tree *tree
	Addr reflectlessAddr
	low  uint8
}

// reflectlessAddr keeps itself.
type reflectlessAddr struct{ any }

func (a reflectlessAddr) MarshalBinary() ([]byte, error) { return []byte(fmt.Sprint(a.any)), nil }
func (a *reflectlessAddr) UnmarshalBinary(b []byte) error {
	a.any = string(b)
	return nil
}

func TestStateCodec(t *testing.T) {
	seven := int64(7)
	v := everything{true, -1, -2, 3, 4.5, math.Inf(1), "sé", []string{"", "x"}, [2]int32{1, -1}, map[string]int{"b": 2, "a": 1}, &seven,
		time.Date(1, 2, 3, 4, 5, 6, 7, time.UTC), &tree{"r", []*tree{{"k", nil}, nil}}, reflectlessAddr{"addr"}, 9}
	c, err := jobs.NewStateCodec[everything]()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []everything{v, {L: []string{}, M: map[string]int{}, Addr: reflectlessAddr{""}, T: time.Time{}}} {
		b, err := c.Append(nil, &want)
		if err != nil {
			t.Fatal(err)
		}
		var got everything
		if err := c.Decode(b, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		for cut := range b {
			if err := c.Decode(b[:cut], new(everything)); err == nil {
				t.Errorf("%d of %d bytes were accepted", cut, len(b))
			}
		}
		if err := c.Decode(append(b, 0), new(everything)); err == nil {
			t.Error("a byte too many was accepted")
		}
	}
	sizes := []struct {
		name      string
		got, want int
	}{
		{"fixed struct", sizeOf[struct {
			A int
			B bool
			T time.Time
		}](t), 21},
		{"array", sizeOf[[3]uint16](t), 6},
		{"empty struct", sizeOf[struct{}](t), 0},
		{"string", sizeOf[string](t), -1},
		{"struct with a slice", sizeOf[struct{ L []int }](t), -1},
	}
	for _, tt := range sizes {
		if tt.got != tt.want {
			t.Errorf("size of %s is %d, want %d", tt.name, tt.got, tt.want)
		}
	}
	if _, err := jobs.NewStateCodec[struct{ F func() }](); err == nil {
		t.Error("a func was accepted")
	}
}

func sizeOf[T any](t *testing.T) int {
	c, err := jobs.NewStateCodec[T]()
	if err != nil {
		t.Fatal(err)
	}
	return c.Size()
}

func FuzzStateCodec(f *testing.F) {
	type in struct {
		N    uint32
		B    bool
		S    string
		L    []struct{ A, B int16 }
		E    []struct{}
		M    map[string][]byte
		P    **int8
		T    time.Time
		Tree *tree
	}
	c, err := jobs.NewStateCodec[in]()
	if err != nil {
		f.Fatal(err)
	}
	one, p := int8(1), new(*int8)
	*p = &one
	b, _ := c.Append(nil, &in{1, true, "s", make([]struct{ A, B int16 }, 2), nil, map[string][]byte{"k": {1}}, p, time.Now(), &tree{Kids: []*tree{{}}}})
	f.Add(b)
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v in
		if c.Decode(b, &v) != nil {
			return
		}
		if back, err := c.Append(nil, &v); err != nil || !bytes.Equal(back, b) {
			t.Fatalf("accepted %x, which encodes as %x, %v", b, back, err)
		}
	})
}

func TestArena(t *testing.T) {
	var a jobs.Arena
	rng := rand.New(rand.NewPCG(1, 2))
	var kept, want [][]byte
	for range 3000 {
		b := bytes.Repeat([]byte{byte(rng.Uint32())}, rng.IntN(300))
		room := a.Room(rng.IntN(100)) // less than is needed, at times
		kept, want = append(kept, a.Keep(append(room, b...))), append(want, b)
	}
	for i := range kept {
		if !bytes.Equal(kept[i], want[i]) {
			t.Fatalf("piece %d was changed", i)
		}
		if cap(kept[i]) != len(kept[i]) {
			t.Fatalf("piece %d has room that is not its own", i)
		}
	}
}

func BenchmarkKeyCodec(b *testing.B) {
	buf := make([]byte, 0, 100)
	b.Run("string", func(b *testing.B) {
		c := jobs.NewKeyCodec[string]()
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = c.Append(buf[:0], "device-0123456")
		}
	})
	b.Run("struct", func(b *testing.B) {
		c := jobs.NewKeyCodec[place]()
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = c.Append(buf[:0], place{"zone", "city", 1})
		}
	})
}

func BenchmarkStateCodec(b *testing.B) {
	type session struct {
		User        string
		First, Last int64
		Clicks      int
		Bounced     bool
	}
	v := session{"user-1234", 1700000000000, 1700000100000, 17, true}
	c, err := jobs.NewStateCodec[session]()
	if err != nil {
		b.Fatal(err)
	}
	j := jobs.JSON[session]()
	buf, _ := c.Append(nil, &v)
	text, _ := j.Encode(nil, v)
	b.Run("codec=state/op=append", func(b *testing.B) {
		for b.Loop() {
			buf, _ = c.Append(buf[:0], &v)
		}
		b.ReportMetric(float64(len(buf)), "B/entry")
	})
	b.Run("codec=state/op=decode", func(b *testing.B) {
		for b.Loop() {
			var got session
			_ = c.Decode(buf, &got)
		}
	})
	b.Run("codec=json/op=append", func(b *testing.B) {
		for b.Loop() {
			text, _ = j.Encode(text[:0], v)
		}
		b.ReportMetric(float64(len(text)), "B/entry")
	})
	b.Run("codec=json/op=decode", func(b *testing.B) {
		for b.Loop() {
			_, _ = j.Decode(text)
		}
	})
}
