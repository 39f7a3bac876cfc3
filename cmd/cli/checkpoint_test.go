package cli

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
)

// saveSnapshot writes a snapshot of job 2 at epoch 300: ten counts, one of them changed behind the first piece.
func saveSnapshot(t *testing.T, dir string) {
	t.Helper()
	if err := writeSnapshot(dir); err != nil {
		t.Fatal(err)
	}
}

func saveSnapshotOf(ts *testscript.TestScript, dir string) { ts.Check(writeSnapshot(ts.MkAbs(dir))) }

func writeSnapshot(dir string) error {
	st, err := checkpoint.NewStore(checkpoint.Config{Lo: 0, Hi: checkpoint.KeyGroups, Epoch: 299})
	if err != nil {
		return err
	}
	w, err := checkpoint.CreateSnapshot(dir, checkpoint.SnapshotMeta{LogID: []byte("0123456789abcdef"), Job: 2, Epoch: 300, LSN: 77, Header: checkpoint.Header{
		Job: 2, Epoch: 300, Splits: []checkpoint.SplitState{{Step: "source", Split: "numbers", Topic: "numbers", Position: []byte{10}, Watermark: 1_700_000_000_000}}}})
	if err != nil {
		return err
	}
	const step = "window-1"
	counts := st.Table(step, "counts")
	put := func(from, to int, what string) error {
		for i := from; i < to; i++ {
			key := jobs.MakeKey(fmt.Appendf(nil, "%q", fmt.Sprintf("k%d", i)))
			counts.Put(key.Group, key.Bytes, 60_000, nil, fmt.Appendf(nil, "{%q:%d}", what, i))
		}
		piece, _ := st.Cut()
		body := append(binary.AppendUvarint(nil, uint64(len(step))), step...)
		return w.Write(append(body, piece...))
	}
	if err := errors.Join(put(0, 10, "n"), put(3, 4, "changed")); err != nil {
		return err
	}
	_, _, err = w.Commit()
	return err
}
