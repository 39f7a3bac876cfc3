package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/sidestream-dev/sidestream/wal"
)

// SnapshotMeta says whose state a snapshot holds, and as of when.
type SnapshotMeta struct {
	Job    uint32
	Epoch  Epoch
	LSN    wal.LSN // the epoch's place in the log
	LogID  []byte  // of the log that has it
	Header Header  // merged over all epochs up to Epoch
}

// SnapshotError says where a snapshot file stopped making sense.
type SnapshotError struct {
	Path   string
	Offset int64
	Err    error
}

func (e *SnapshotError) Unwrap() error { return e.Err }

func (e *SnapshotError) Error() string {
	return fmt.Sprintf("checkpoint: snapshot %s is damaged at byte %d: %v", e.Path, e.Offset, e.Err)
}

var (
	errMagic     = errors.New("it is not a snapshot")
	errTruncated = errors.New("it has no end; it was not written whole")
	errCRC       = errors.New("the checksum is wrong")
	errKind      = errors.New("unknown kind of record")
	errSequence  = errors.New("a record is out of place")
	errCount     = errors.New("records or bytes are missing")
)

const (
	snapshotMagic   = "ssnap\x00\x00\x00"
	snapshotVersion = 1
	snapshotHeadLen = 16
	recordHeadLen   = 16
	trailerLen      = recordHeadLen + 24

	recordState   = 1
	recordMeta    = 2
	recordTrailer = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SnapshotDue reports whether a job should write a snapshot: the frames since its last one have framesSince bytes, its state
// has stateBytes, and one is not worth it for fewer than least.
func SnapshotDue(framesSince, stateBytes, least int64) bool {
	return framesSince >= max(least, stateBytes)
}

// SnapshotWriter writes one snapshot file. It has no lock.
type SnapshotWriter struct {
	disk disk
	dir  string
	temp string
	meta SnapshotMeta
	f    diskFile
	buf  []byte
	off  int64
	n    uint32 // records written
	body uint64 // bytes of the state records
	err  error
}

const snapshotBufferBytes = 256 << 10

// CreateSnapshot begins a snapshot in dir, which is made if it does not exist. It has a temporary name until Commit.
// All integers of a file are little-endian; crc is CRC-32C of the record's head before it and its body.
//
//	+----------+-------------+---------+
//	| magic 8B | version u32 | crc u32 |
//	+----------+---------+---+---------+---------+- ... -+
//	| body len u32 | kind u32 | index u32 | crc u32 | body |   one record after another; index counts them from 0
//	+--------------+----------+-----------+---------+- ... -+
//	1 state    a chunk or a piece, each as a section body
//	2 meta     job u, epoch u, LSN u, log id string, header string; one, behind the state
//	3 trailer  offset of the meta record u64, state records u64, bytes of their bodies u64; the last 40 bytes of the file
func CreateSnapshot(dir string, meta SnapshotMeta) (*SnapshotWriter, error) {
	return createSnapshot(osDisk{}, dir, meta)
}

func createSnapshot(d disk, dir string, meta SnapshotMeta) (*SnapshotWriter, error) {
	if err := d.makeDir(dir); err != nil {
		return nil, fmt.Errorf("checkpoint: make the folder of snapshots: %w", err)
	}
	f, err := d.create(dir, tempPrefix(meta.Job)+"*"+tempSuffix)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: create a snapshot: %w", err)
	}
	w := &SnapshotWriter{disk: d, dir: dir, temp: f.Name(), meta: meta, f: f}
	w.buf = append(make([]byte, 0, snapshotBufferBytes+recordHeadLen), snapshotMagic...)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, snapshotVersion)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, crc32.Checksum(w.buf, castagnoli))
	return w, nil
}

// Write appends a chunk or a piece. All chunks of a subtask come before its first piece; pieces come in the order of epochs.
func (w *SnapshotWriter) Write(chunk []byte) error {
	if w.err == nil && int64(len(chunk)) > 1<<32-1 {
		w.err = fmt.Errorf("checkpoint: a chunk of %d bytes", len(chunk))
	}
	w.body += uint64(len(chunk))
	return w.record(recordState, chunk)
}

// At moves the snapshot to the epoch at which its pieces end; the job stays.
func (w *SnapshotWriter) At(meta SnapshotMeta) {
	meta.Job = w.meta.Job
	w.meta = meta
}

func (w *SnapshotWriter) record(kind uint32, body []byte) error {
	if w.err != nil {
		return w.err
	}
	var head [recordHeadLen]byte
	le := binary.LittleEndian
	le.PutUint32(head[0:], uint32(len(body)))
	le.PutUint32(head[4:], kind)
	le.PutUint32(head[8:], w.n)
	le.PutUint32(head[12:], crc32.Update(crc32.Checksum(head[:12], castagnoli), castagnoli, body))
	w.n++
	w.buf = append(w.buf, head[:]...)
	if len(w.buf)+len(body) <= snapshotBufferBytes {
		w.buf = append(w.buf, body...)
		return nil
	}
	w.flush(w.buf)
	w.buf = w.buf[:0]
	if len(body) <= snapshotBufferBytes {
		w.buf = append(w.buf, body...)
	} else {
		w.flush(body)
	}
	return w.err
}

func (w *SnapshotWriter) flush(b []byte) {
	if w.err != nil || len(b) == 0 {
		return
	}
	if _, err := w.f.Write(b); err != nil {
		w.err = fmt.Errorf("checkpoint: write a snapshot: %w", err)
	}
	w.off += int64(len(b))
}

// Commit makes the snapshot last under its name and returns that and its size. After an error there is none, and Abort
// removes what was written.
func (w *SnapshotWriter) Commit() (path string, bytes int64, err error) {
	states := uint64(w.n)
	metaAt := uint64(w.off) + uint64(len(w.buf))
	m := binary.AppendUvarint(nil, uint64(w.meta.Job))
	m = binary.AppendUvarint(m, uint64(w.meta.Epoch))
	m = binary.AppendUvarint(m, uint64(w.meta.LSN))
	m = appendString(m, w.meta.LogID)
	m = appendString(m, AppendHeader(nil, w.meta.Header))
	w.record(recordMeta, m)
	le := binary.LittleEndian
	w.record(recordTrailer, le.AppendUint64(le.AppendUint64(le.AppendUint64(nil, metaAt), states), w.body))
	w.flush(w.buf)
	w.buf = nil
	if w.err != nil {
		return "", 0, w.err
	}
	path = filepath.Join(w.dir, snapshotName(w.meta.Job, w.meta.Epoch))
	w.err = w.publish(path)
	if w.err != nil {
		return "", 0, w.err
	}
	w.err = errClosed
	return path, w.off, nil
}

var errClosed = errors.New("checkpoint: the snapshot is committed or aborted")

// publish orders what a crash may see: the bytes, then the name, then the folder that holds it.
func (w *SnapshotWriter) publish(path string) error {
	if err := w.f.Sync(); err != nil {
		return fmt.Errorf("checkpoint: sync a snapshot: %w", err)
	}
	err := w.f.Close()
	w.f = nil
	if err != nil {
		return fmt.Errorf("checkpoint: close a snapshot: %w", err)
	}
	if err := w.disk.rename(w.temp, path); err != nil {
		return fmt.Errorf("checkpoint: name a snapshot: %w", err)
	}
	w.temp = path
	if err := w.disk.syncDir(w.dir); err != nil {
		return fmt.Errorf("checkpoint: sync the folder of snapshots: %w", err)
	}
	return nil
}

// Abort removes an uncommitted snapshot; after Commit returned nil it does nothing.
func (w *SnapshotWriter) Abort() error {
	if w.err == errClosed {
		return nil
	}
	w.err = errClosed
	if w.f != nil {
		w.f.Close() // what could not be written is removed anyway
		w.f = nil
	}
	w.buf = nil
	if err := w.disk.remove(w.temp); err != nil {
		return fmt.Errorf("checkpoint: remove an unfinished snapshot: %w", err)
	}
	return nil
}

// SnapshotReader reads one snapshot file. It has no lock.
type SnapshotReader struct {
	path   string
	f      *os.File
	meta   SnapshotMeta
	end    int64  // where the meta record is
	off    int64  // where the next record is
	n      uint32 // records read
	states uint64
	body   uint64
	got    uint64
}

// OpenSnapshot opens a snapshot and checks that it is whole as far as its end tells; each chunk is checked by Next. What
// is damaged or truncated is refused with a *SnapshotError.
func OpenSnapshot(path string) (*SnapshotReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: open a snapshot: %w", err)
	}
	r := &SnapshotReader{path: path, f: f}
	if err := r.open(); err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

func (r *SnapshotReader) damage(off int64, err error) error {
	return &SnapshotError{Path: r.path, Offset: off, Err: err}
}

func (r *SnapshotReader) open() error {
	info, err := r.f.Stat()
	if err != nil {
		return fmt.Errorf("checkpoint: open a snapshot: %w", err)
	}
	size := info.Size()
	if size < snapshotHeadLen+recordHeadLen+trailerLen {
		return r.damage(size, errTruncated)
	}
	var head [snapshotHeadLen]byte
	if err := r.read(head[:], 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	switch {
	case string(head[:8]) != snapshotMagic:
		return r.damage(0, errMagic)
	case le.Uint32(head[12:]) != crc32.Checksum(head[:12], castagnoli):
		return r.damage(0, errCRC)
	case le.Uint32(head[8:]) != snapshotVersion:
		return r.damage(8, errVersion)
	}
	at := size - trailerLen
	kind, trailer, index, err := r.record(at, size)
	if err != nil || kind != recordTrailer || len(trailer) != trailerLen-recordHeadLen {
		return r.damage(at, errTruncated)
	}
	metaAt := le.Uint64(trailer)
	r.states, r.body = le.Uint64(trailer[8:]), le.Uint64(trailer[16:])
	if metaAt < snapshotHeadLen || metaAt > uint64(at-recordHeadLen) {
		return r.damage(at, errRange)
	}
	r.end = int64(metaAt)
	kind, meta, metaIndex, err := r.record(r.end, at)
	switch {
	case err != nil:
		return err
	case kind != recordMeta:
		return r.damage(r.end, errKind)
	case r.end+recordHeadLen+int64(len(meta)) != at, uint64(metaIndex) != r.states, uint64(index) != r.states+1:
		return r.damage(r.end, errSequence)
	}
	if err := decodeMeta(&r.meta, meta); err != nil {
		return r.damage(r.end+recordHeadLen, err)
	}
	r.off = snapshotHeadLen
	return nil
}

func decodeMeta(m *SnapshotMeta, b []byte) error {
	d := &decoder{b: b}
	m.Job, m.Epoch, m.LSN = d.uint32(), Epoch(d.uvarint()), wal.LSN(d.uvarint())
	m.LogID = append([]byte(nil), d.bytes()...)
	header := d.bytes()
	if err := d.result("snapshot meta"); err != nil {
		return err
	}
	var err error
	m.Header, err = DecodeHeader(header)
	return err
}

func (r *SnapshotReader) read(b []byte, off int64) error {
	_, err := r.f.ReadAt(b, off)
	switch {
	case err == io.EOF:
		return r.damage(off, errTruncated)
	case err != nil:
		return fmt.Errorf("checkpoint: read a snapshot: %w", err)
	}
	return nil
}

// record reads the record at off, which must end at or before limit.
func (r *SnapshotReader) record(off, limit int64) (kind uint32, body []byte, index uint32, err error) {
	var head [recordHeadLen]byte
	if off+recordHeadLen > limit {
		return 0, nil, 0, r.damage(off, errTruncated)
	}
	if err := r.read(head[:], off); err != nil {
		return 0, nil, 0, err
	}
	le := binary.LittleEndian
	n := int64(le.Uint32(head[:]))
	if n > limit-off-recordHeadLen {
		return 0, nil, 0, r.damage(off, errTruncated)
	}
	body = make([]byte, n)
	if err := r.read(body, off+recordHeadLen); err != nil {
		return 0, nil, 0, err
	}
	if le.Uint32(head[12:]) != crc32.Update(crc32.Checksum(head[:12], castagnoli), castagnoli, body) {
		return 0, nil, 0, r.damage(off, errCRC)
	}
	return le.Uint32(head[4:]), body, le.Uint32(head[8:]), nil
}

// Meta returns whose state this is, and as of when. It does not change.
func (r *SnapshotReader) Meta() SnapshotMeta { return r.meta }

// Next returns the next chunk or piece, to be applied in this order; the caller owns it. io.EOF means that all of them were
// read and are whole; any other end is an error, a *SnapshotError where the file is at fault.
func (r *SnapshotReader) Next() ([]byte, error) {
	if r.off == r.end {
		if uint64(r.n) != r.states || r.got != r.body {
			return nil, r.damage(r.off, errCount)
		}
		return nil, io.EOF
	}
	kind, body, index, err := r.record(r.off, r.end)
	switch {
	case err != nil:
		return nil, err
	case kind != recordState:
		return nil, r.damage(r.off, errKind)
	case index != r.n:
		return nil, r.damage(r.off, errSequence)
	}
	r.n++
	r.got += uint64(len(body))
	r.off += recordHeadLen + int64(len(body))
	return body, nil
}

// VerifySnapshot reads a snapshot to its end. What is damaged is a *SnapshotError.
func VerifySnapshot(path string) (err error) {
	r, err := OpenSnapshot(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		switch _, err := r.Next(); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// Close releases the file.
func (r *SnapshotReader) Close() error { return r.f.Close() }
