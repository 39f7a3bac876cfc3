package generator

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
)

func env() jobs.SourceEnv {
	return jobs.SourceEnv{Job: "test", Step: "in", Logger: slog.New(slog.DiscardHandler), Waiting: func(string) {}}
}

func TestSuite(t *testing.T) {
	for _, s := range []Source{
		{Count: 50, Partitions: 3},
		{Count: 50, Rate: 100_000, Partitions: 2, Start: 1000},
		{Count: 20, Template: "${n} ${random}"},
	} {
		t.Run(fmt.Sprintf("%+v", s), func(t *testing.T) {
			jobstest.TestSource(t, jobstest.SourceSuite{Records: int(s.Count), New: func(*testing.T) jobs.Source { return s }})
		})
	}
}

// read takes n records of each split of s.
func read(t *testing.T, s Source, n int) [][]jobs.Message {
	t.Helper()
	st, err := s.Splits(t.Context(), env())
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), env(), st)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out := make([][]jobs.Message, len(st))
	for i := range st {
		c := &jobs.Chunk{Max: n}
		if err := r.Read(c, []int{i}); err != nil {
			t.Fatal(err)
		}
		out[i] = slices.Clone(c.Messages)
	}
	return out
}

// TestReading: the built-in shape is JSON of a steady size, the same for the same seed.
func TestReading(t *testing.T) {
	got := read(t, Source{Partitions: 2}, 1000)
	for i, ms := range got {
		for n, m := range ms {
			var v struct {
				Device, Kind, Note string
				TS, Seq            int64
				Reading            float64
				Tags               []string
			}
			if err := json.Unmarshal(m.Value, &v); err != nil {
				t.Fatalf("%s: %v", m.Value, err)
			}
			if v.Device != string(m.Key) || v.Seq != int64(n) || m.Offset != int64(n) || v.TS != int64(m.Time) ||
				v.Reading < 0 || v.Reading >= 100 || len(v.Tags) != 2 {
				t.Fatalf("split %d record %d: %s with %+v", i, n, m.Value, m)
			}
			if want := int64(fixedStart) + int64(n)/10; v.TS != want { // 20 a millisecond, over two splits
				t.Fatalf("record %d has the time %d, want %d", n, v.TS, want)
			}
			if len(m.Value) < 230 || len(m.Value) > 250 {
				t.Fatalf("record of %d bytes", len(m.Value))
			}
		}
	}
	if string(got[0][0].Value) == string(got[1][0].Value) {
		t.Error("two splits begin with the same record")
	}
	again, other := read(t, Source{Partitions: 2}, 10), read(t, Source{Partitions: 2, Seed: 1}, 10)
	if string(again[0][3].Value) != string(got[0][3].Value) || string(other[0][3].Value) == string(got[0][3].Value) {
		t.Error("the seed does not decide the records")
	}
}

func TestTemplate(t *testing.T) {
	s := Source{Template: `{"n":${n},"p":${split},"ts":${ts},"at":"${time}","d":"${device}","k":"${kind}","r":${reading},"x":${random}}`,
		Measure: `a"b`, Start: 1000, EventRate: 1, Devices: 1}
	ms := read(t, s, 3)[0]
	var v map[string]any
	if err := json.Unmarshal(ms[2].Value, &v); err != nil {
		t.Fatalf("%s: %v", ms[2].Value, err)
	}
	for name, want := range map[string]any{"n": 2.0, "p": 0.0, "ts": 3000.0, "at": "1970-01-01T00:00:03.000Z", "d": "device-00000", "k": `a"b`} {
		if v[name] != want {
			t.Errorf("%s is %v, want %v", name, v[name], want)
		}
	}
	if got := string(read(t, Source{Template: "fixed"}, 1)[0][0].Value); got != "fixed" {
		t.Errorf("got %q", got)
	}
}

func TestRefuses(t *testing.T) {
	for _, tt := range []struct {
		source Source
		want   string
	}{
		{Source{Rate: -1}, "negative"},
		{Source{Partitions: maxSplits + 1}, "more than 1024"},
		{Source{Devices: maxDevices + 1}, "more than 10000000"},
		{Source{Template: "${n"}, "not closed"},
		{Source{Template: "${m}"}, "${m} is not one of ${n}"},
	} {
		if _, err := tt.source.Splits(t.Context(), env()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want an error with %q", tt.source, err, tt.want)
		}
	}
	for _, st := range []jobs.Start{
		{Split: jobs.Split{Partition: 0}, Position: []byte{9}},
		{Split: jobs.Split{Partition: 7}, Position: position{}.encode()},
	} {
		if _, err := (Source{}).Open(t.Context(), env(), []jobs.Start{st}); err == nil {
			t.Errorf("%+v was accepted", st)
		}
	}
}

// TestRate: on a virtual clock, as many records are given as are due, and Ready wakes for the next.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Source{Rate: 1000, Partitions: 2}
		st, err := s.Splits(t.Context(), env())
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Open(t.Context(), env(), st)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		begin, n := time.Now(), 0
		var last jobs.Message
		for time.Since(begin) < 10*time.Second {
			c := &jobs.Chunk{Max: 100}
			if err := r.Read(c, []int{0, 1}); err != nil {
				t.Fatal(err)
			}
			n += len(c.Messages)
			if len(c.Messages) == 0 {
				<-r.Ready()
			} else {
				last = c.Messages[len(c.Messages)-1]
			}
		}
		if n < 9_900 || n > 10_010 {
			t.Errorf("%d records in 10 s, want 10,000", n)
		}
		if d := time.Since(last.Time.Go()); d.Abs() > 50*time.Millisecond {
			t.Errorf("the last event time is %v off the clock", d)
		}
	})
}

func TestSettings(t *testing.T) {
	k := SourceKind()
	v, errs := connector.Complete(k.Fields, map[string]any{"rate": 5, "count": "1_000", "start": "2026-01-31T00:00:00Z"})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	got, err := k.New(v, connector.LoadEnv{})
	want := Source{Rate: 5, Count: 1000, Partitions: 1, Devices: 10_000, Start: 1769817600000}
	if err != nil || got != jobs.Source(want) {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
	if k.Decodes(v) != connector.JSON {
		t.Error("readings are not said to be JSON")
	}
	for field, value := range map[string]any{"start": "soon", "partitions": 0, "devices": 0, "template": "${"} {
		v, errs := connector.Complete(k.Fields, map[string]any{field: value})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		_, err := k.New(v, connector.LoadEnv{})
		if fe := connector.FieldErrors(err); len(fe) != 1 || fe[0].Field != field {
			t.Errorf("%s %v: got %v", field, value, err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	st, err := Source{}.Splits(b.Context(), env())
	if err != nil {
		b.Fatal(err)
	}
	r, err := Source{}.Open(b.Context(), env(), st)
	if err != nil {
		b.Fatal(err)
	}
	c := &jobs.Chunk{}
	want := []int{0}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		c.Reset()
		c.Max = 1024
		if err := r.Read(c, want); err != nil {
			b.Fatal(err)
		}
		n += len(c.Messages)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mrec/s")
}
