package runtime

import (
	"bytes"
	"testing"
)

// FuzzCutStep: what is accepted of a state section encodes back to itself.
func FuzzCutStep(f *testing.F) {
	f.Add(appendStep("window-1", []byte("entries")))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}) // a length far past the input
	f.Add([]byte{0x80, 0})                                              // a number that is not in its shortest form
	f.Fuzz(func(t *testing.T, in []byte) {
		step, entries, err := cutStep(in)
		if err == nil && !bytes.Equal(appendStep(step, entries), in) {
			t.Fatalf("accepted %x, which encodes as %x", in, appendStep(step, entries))
		}
	})
}

// FuzzLedger: a catalog's ledger that is accepted encodes to one that decodes to the same; nothing panics.
func FuzzLedger(f *testing.F) {
	l := newLedger()
	l.Jobs[1] = &jobEntry{ID: 1, Name: "job", Phase: PhaseActive, Outputs: []outputEntry{{Name: "out", Outside: true, Sub: 3}}}
	s, err := l.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Body)
	f.Add([]byte(`{"jobs":{"1":null}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		l, err := decodeLedger(in)
		if err != nil {
			return
		}
		once, err := l.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeLedger(once.Body)
		if err != nil {
			t.Fatalf("%s, encoded anew as %s: %v", in, once.Body, err)
		}
		if twice, err := again.encode(); err != nil || !bytes.Equal(twice.Body, once.Body) {
			t.Fatalf("%s became %s, %v", once.Body, twice.Body, err)
		}
	})
}

// FuzzControl: the same of a change.
func FuzzControl(f *testing.F) {
	s, err := (&control{Sent: []sentEntry{{Sub: 3, Next: 5}}}).section()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Body)
	f.Add([]byte(`{"jobs":[{}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := decodeControl(in)
		if err != nil {
			return
		}
		once, err := c.section()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeControl(once.Body)
		if err != nil {
			t.Fatalf("%s, encoded anew as %s: %v", in, once.Body, err)
		}
		if twice, err := again.section(); err != nil || !bytes.Equal(twice.Body, once.Body) {
			t.Fatalf("%s became %s, %v", once.Body, twice.Body, err)
		}
	})
}
