package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

func someMeta() SnapshotMeta {
	return SnapshotMeta{Job: 3, Epoch: 300, LSN: 77, LogID: []byte("0123456789abcdef"), Header: fullHeader()}
}

// writeSnapshot commits a snapshot of chunks to dir and returns its path.
func writeSnapshot(t testing.TB, dir string, meta SnapshotMeta, chunks ...[]byte) string {
	t.Helper()
	w, err := CreateSnapshot(dir, SnapshotMeta{Job: meta.Job})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks {
		if err := w.Write(c); err != nil {
			t.Fatal(err)
		}
	}
	w.At(meta)
	path, size, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != size {
		t.Fatalf("%s: %v, %d bytes said", path, err, size)
	}
	if err := w.Abort(); err != nil {
		t.Errorf("Abort behind Commit: %v", err)
	}
	return path
}

// readSnapshot reads all of a snapshot.
func readSnapshot(path string) (meta SnapshotMeta, chunks [][]byte, err error) {
	r, err := OpenSnapshot(path)
	if err != nil {
		return meta, nil, err
	}
	defer r.Close()
	for {
		c, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Meta(), chunks, nil
		}
		if err != nil {
			return r.Meta(), nil, err
		}
		chunks = append(chunks, c)
	}
}

func TestSnapshotGolden(t *testing.T) {
	path := writeSnapshot(t, t.TempDir(), someMeta(), somePiece(t), []byte{}, []byte("chunk"))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "snapshot-v1.hex", b)
	if name := filepath.Base(path); name != "0000000003-00000000000000000300.snapshot" {
		t.Errorf("its name is %s", name)
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 40_000) // larger than the writer's buffer
	for _, chunks := range [][][]byte{
		nil,
		{{}},
		{[]byte("one")},
		{big},
		{[]byte("one"), big, {}, big[:snapshotBufferBytes], big[:snapshotBufferBytes-2*recordHeadLen], []byte("last")},
	} {
		meta := someMeta()
		path := writeSnapshot(t, filepath.Join(t.TempDir(), "made", "with its parents"), meta, chunks...)
		gotMeta, got, err := readSnapshot(path)
		if err != nil || !reflect.DeepEqual(gotMeta, meta) || !slices.EqualFunc(got, chunks, bytes.Equal) {
			t.Errorf("%d chunks: got %d, %v\n%+v\n%+v", len(chunks), len(got), err, gotMeta, meta)
		}
	}
}

// TestSnapshotDamaged: no cut at any byte and no flipped bit is read as a snapshot; all are found, by Open or by Next, and
// named with their place.
func TestSnapshotDamaged(t *testing.T) {
	dir := t.TempDir()
	small := SnapshotMeta{Job: 3, Epoch: 300, LSN: 77, LogID: []byte("id")}
	whole, err := os.ReadFile(writeSnapshot(t, dir, small, []byte("chunk"), []byte{}, []byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "damaged")
	check := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		var damage *SnapshotError
		if _, _, err := readSnapshot(path); !errors.As(err, &damage) || damage.Path != path || damage.Offset < 0 || damage.Offset > int64(len(b)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n := range whole {
		check(fmt.Sprintf("cut at byte %d", n), whole[:n])
		if zeros := append(bytes.Clone(whole[:n]), make([]byte, len(whole)-n)...); !bytes.Equal(zeros, whole) {
			check(fmt.Sprintf("zeros from byte %d", n), zeros)
		}
	}
	for bit := range 8 * len(whole) {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		check(fmt.Sprintf("bit %d flipped", bit), b)
	}
	check("a byte more", append(bytes.Clone(whole), 0))
	check("twice", append(bytes.Clone(whole), whole...))
	t.Logf("%d cuts, zeros from as many, %d bits", len(whole), 8*len(whole))
}

// TestSnapshotRecordsInPlace: records that are whole but out of place are found.
func TestSnapshotRecordsInPlace(t *testing.T) {
	dir := t.TempDir()
	b, err := os.ReadFile(writeSnapshot(t, dir, someMeta(), []byte("first"), []byte("other")))
	if err != nil {
		t.Fatal(err)
	}
	const size = recordHeadLen + 5
	first, second := b[snapshotHeadLen:snapshotHeadLen+size], b[snapshotHeadLen+size:snapshotHeadLen+2*size]
	for what, swap := range map[string][2][]byte{"swapped": {second, first}, "one twice": {first, first}} {
		c := bytes.Clone(b)
		copy(c[snapshotHeadLen:], swap[0])
		copy(c[snapshotHeadLen+size:], swap[1])
		path := filepath.Join(dir, "damaged")
		if err := os.WriteFile(path, c, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readSnapshot(path); !errors.Is(err, errSequence) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzSnapshot(f *testing.F) {
	dir := f.TempDir()
	for _, chunks := range [][][]byte{nil, {[]byte("one"), []byte("two")}, {somePiece(f)}} {
		b, err := os.ReadFile(writeSnapshot(f, dir, someMeta(), chunks...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[snapshotHeadLen:], 1<<31) // a length far past the end
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "in")
		if err := os.WriteFile(path, in, 0o644); err != nil {
			t.Fatal(err)
		}
		meta, chunks, err := readSnapshot(path)
		if err != nil {
			return
		}
		out, err := os.ReadFile(writeSnapshot(t, dir, meta, chunks...))
		if err != nil || !bytes.Equal(out, in) {
			t.Fatalf("accepted %d bytes, which are written as %d, %v", len(in), len(out), err)
		}
	})
}

func TestListKeepAndRemove(t *testing.T) {
	dir := t.TempDir()
	if files, err := ListSnapshots(filepath.Join(dir, "not there")); err != nil || files != nil {
		t.Errorf("of a folder that is not there: %v %v", files, err)
	}
	for _, s := range []struct {
		job uint32
		e   Epoch
	}{{1, 10}, {2, 5}, {1, 9}, {1, 100}, {2, 7}, {1, 2}, {11, 1}} {
		writeSnapshot(t, dir, SnapshotMeta{Job: s.job, Epoch: s.e}, []byte("x"))
	}
	unfinished, err := CreateSnapshot(dir, SnapshotMeta{Job: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := unfinished.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"1-2.snapshot", "0000000001-00000000000000000003.snapshot.old", "0000000001-x.snapshot", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "0000000001-00000000000000000004.snapshot"), 0o755); err != nil {
		t.Fatal(err)
	}
	list := func() (out []string) {
		files, err := ListSnapshots(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if f.Bytes == 0 {
				t.Errorf("%s has no bytes", f.Path)
			}
			out = append(out, fmt.Sprintf("%d@%s", f.Job, f.Epoch))
		}
		return out
	}
	if got := list(); !slices.Equal(got, []string{"1@100", "1@10", "1@9", "1@2", "2@7", "2@5", "11@1"}) {
		t.Errorf("listed %v", got)
	}
	removed, err := KeepSnapshots(dir, 1, 10)
	if err != nil || len(removed) != 2 || removed[0].Epoch != 9 || removed[1].Epoch != 2 {
		t.Errorf("removed %+v, %v", removed, err)
	}
	if got := list(); !slices.Equal(got, []string{"1@100", "1@10", "2@7", "2@5", "11@1"}) {
		t.Errorf("kept %v", got)
	}
	if removed, err := RemoveUnfinished(dir); err != nil || len(removed) != 1 {
		t.Errorf("unfinished: %v %v", removed, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5+5 {
		t.Errorf("%d files are left, %v: what is not ours stays", len(entries), err)
	}
	if removed, err := RemoveUnfinished(filepath.Join(dir, "not there")); err != nil || removed != nil {
		t.Errorf("%v %v", removed, err)
	}
}

func TestSnapshotAbort(t *testing.T) {
	dir := t.TempDir()
	w, err := CreateSnapshot(dir, SnapshotMeta{Job: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := w.Write([]byte("x")); err == nil {
		t.Error("written behind Abort")
	}
	if _, _, err := w.Commit(); err == nil {
		t.Error("committed behind Abort")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v %v", entries, err)
	}
}

func TestSnapshotDue(t *testing.T) {
	for _, tt := range []struct {
		frames, state int64
		want          bool
	}{
		{0, 0, false}, {64<<20 - 1, 0, false}, {64 << 20, 0, true}, {64 << 20, 65 << 20, false}, {65 << 20, 65 << 20, true}, {1 << 30, 1 << 20, true},
	} {
		if got := SnapshotDue(tt.frames, tt.state, 64<<20); got != tt.want {
			t.Errorf("%d bytes of frames, %d of state: %v", tt.frames, tt.state, got)
		}
	}
}

// TestListSnapshotsBesideOthers: files that other jobs replace meanwhile are no error of who lists them.
func TestListSnapshotsBesideOthers(t *testing.T) {
	dir := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 2000 {
			path := filepath.Join(dir, SnapshotName(1, Epoch(n+1)))
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Remove(path)); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		if _, err := ListSnapshots(dir); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
