package bus

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sidestream-dev/sidestream/wal"
)

// TestDamagedLog: what is damaged in the log is an error of its reader that says where, never records that nobody wrote; the
// readers of other partitions go on.
func TestDamagedLog(t *testing.T) {
	dir := t.TempDir()
	l, err := wal.Open(dir, wal.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Rotate(nil); err != nil {
		t.Fatal(err)
	}
	b := New(Config{MemoryBytes: 1}, walLog{l})
	if err := b.Define(1, TopicSpec{Name: "t", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		pubs := []Publication{pub(1, 0, "in the first partition"), pub(1, 1, "in the second partition")}
		b.Assign(pubs)
		lsn, err := l.Append(kindLast, frameSections(pubs, nil))
		if err != nil {
			t.Fatal(err)
		}
		b.Publish(lsn, pubs, nil)
	}
	if err := l.WaitDurable(t.Context(), l.Last()); err != nil {
		t.Fatal(err)
	}
	b.Durable(l.Durable())
	states, err := b.Subscribe(1, "s", 1, Start{Earliest: true})
	if err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	raw, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(raw, []byte("in the first"))
	raw[at] ^= 1
	if err := os.WriteFile(segments[0], raw, 0o644); err != nil {
		t.Fatal(err)
	}
	for partition, want := range []int{2, 3} {
		rd := b.NewReader(1, 1, states[partition:partition+1], func() {})
		n := 0
		var failure error
		for {
			batch, ok, err := rd.Next(9)
			if err != nil || !ok {
				failure = err
				break
			}
			n += batch.Len()
		}
		var corrupt *wal.CorruptError
		if n != want || (partition == 0) != errors.As(failure, &corrupt) || partition == 0 && corrupt.First != 4 {
			t.Errorf("partition %d: %d records, then %v", partition, n, failure)
		}
		if rd.Ended() || rd.Close() != nil {
			t.Errorf("partition %d: ended %v", partition, rd.Ended())
		}
	}
}

// TestIndexThatLies: an index that names what is not there is an error.
func TestIndexThatLies(t *testing.T) {
	for what, change := range map[string]func(*Publication){
		"a section that is not there": func(p *Publication) { p.Section = 9 },
		"a section of another kind":   func(p *Publication) { p.Section = 1 },
		"a part that holds none":      func(p *Publication) { p.Part = 1 },
		"a part that is not there":    func(p *Publication) { p.Part = 99 },
		"a wrong count":               func(p *Publication) { p.Count++ },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, Config{MemoryBytes: 1})
			r.define(1, TopicSpec{Name: "t"})
			states := r.subscribe(1, 1, Start{Earliest: true})
			pubs := []Publication{pub(1, 0, "a")}
			r.Assign(pubs)
			sections := frameSections(pubs, nil)
			change(&pubs[0])
			sections[len(sections)-1].Body = AppendIndex(nil, pubs, nil)
			r.Publish(r.log.append(sections...), pubs, nil)
			r.durable()
			rd := r.NewReader(1, 1, states, func() {})
			defer rd.Close()
			if b, ok, err := rd.Next(9); err == nil {
				t.Errorf("read %d records, ok %v", b.Len(), ok)
			} else {
				t.Log(err)
			}
		})
	}
}

// TestLogShorterThanSaid: a log that ends before what was said to be durable is an error, not a search without end.
func TestLogShorterThanSaid(t *testing.T) {
	r := newRig(t, Config{MemoryBytes: 1})
	r.define(1, TopicSpec{Name: "t"})
	states := r.subscribe(1, 1, Start{Earliest: true})
	r.Durable(r.epoch([]Publication{pub(1, 0, "a")}))
	rd := r.NewReader(1, 1, states, func() {})
	defer rd.Close()
	if _, ok, err := rd.Next(9); !errors.Is(err, errLogShort) {
		t.Errorf("ok %v, %v", ok, err)
	}
	r.log.setDurable(r.log.last())
	equal(t, "once it is there", drain(t, rd, 9), []string{"0:0=a"})
}
