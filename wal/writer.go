package wal

import (
	"path/filepath"
	"time"
)

const batchBytes = 256 << 10 // small frames are given to the engine in batches of this size

// writer is the one goroutine that owns the engine. Its fields are its own.
type writer struct {
	*Log
	engine    appender
	first     LSN    // of the generation
	prev      uint32 // checksum of the frame before
	segBytes  int64  // in the engine's tail segment, as the engine counts
	dirDirty  bool   // the engine made a segment whose directory was not fsynced
	rootDirty bool   // likewise a generation

	buf     []byte   // frames encoded and not yet written
	ends    []int    // where each ends in buf
	entries [][]byte // the same, for the engine
	from    LSN      // the first of them
	bytes   int64    // of them, as they will lie in the segment
	more    bool     // the last one's catalog goes on
}

// resume opens the engine where g ends.
func (w *writer) resume(g *generationScan) (err error) {
	w.first, w.prev, w.segBytes = g.first, g.due.prev, g.end.off
	w.engine, err = w.disk.OpenEngine(filepath.Join(w.dir, generationName(g.first)), w.cfg.SegmentBytes)
	return err
}

// run writes and fsyncs what is queued until the log is closed or has failed.
func (w *writer) run() {
	defer close(w.done)
	var group []request
	for {
		group = w.take(group[:0])
		if len(group) == 0 {
			break
		}
		if err := w.commit(group); err != nil {
			w.fail(err)
			break
		}
		clear(group) // let go of the bodies
	}
	if w.engine != nil {
		if err := w.engine.Close(); err != nil && w.Err() == nil {
			w.fail(&FailedError{"close", err})
		}
	}
}

// take waits for frames and moves one group of them from the queue to group: none when the log is closed and empty.
func (w *writer) take(group []request) []request {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) == 0 && !w.closing {
		w.ready.Wait()
	}
	var bytes int64
	n := 0
	for n < len(w.queue) && (n == 0 || bytes < w.cfg.GroupBytes || w.queue[n-1].more) { // a catalog is never durable in part
		bytes += w.queue[n].bytes
		n++
	}
	group = append(group, w.queue[:n]...)
	rest := copy(w.queue, w.queue[n:])
	clear(w.queue[rest:])
	w.queue = w.queue[:rest]
	return group
}

// commit writes a group, fsyncs it and says so.
func (w *writer) commit(group []request) *FailedError {
	start := time.Now()
	for i := range group {
		r := &group[i]
		if r.kind == KindCatalog {
			if err := w.rotate(r.lsn); err != nil {
				return err
			}
		}
		if err := w.encode(r); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.stats.writeNanos.Add(int64(time.Since(start)))
	if err := w.sync(); err != nil {
		return err
	}
	w.stats.group(len(group))
	return nil
}

// encode adds a frame to those to be written, and writes them when they are many.
func (w *writer) encode(r *request) *FailedError {
	h := head{kind: r.kind, id: w.id, lsn: r.lsn, durable: w.Durable(), prev: w.prev}
	var ext *extension
	if r.kind == KindCatalog {
		ext = &extension{first: w.idFirst, ancestors: w.ancestors, parts: r.parts}
		if err := w.describeOld(ext); err != nil {
			return &FailedError{"list the old generation", err}
		}
	}
	if len(w.buf) > 0 && int64(len(w.buf))+r.bytes > batchBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if len(w.ends) == 0 {
		w.from = r.lsn
	}
	w.buf, w.prev = appendFrame(w.buf, h, ext, r.sections)
	w.ends = append(w.ends, len(w.buf))
	w.bytes += r.bytes
	w.more = r.more
	return nil
}

// flush gives the encoded frames to the engine.
func (w *writer) flush() *FailedError {
	if len(w.ends) == 0 {
		return nil
	}
	start := 0
	for _, end := range w.ends {
		w.entries = append(w.entries, w.buf[start:end])
		start = end
	}
	if err := w.engine.Write(uint64(w.from-w.first)+1, w.entries); err != nil {
		return &FailedError{"write", err}
	}
	w.count()
	last := w.from + LSN(len(w.ends)) - 1
	w.genMu.Lock()
	g := &w.gens[len(w.gens)-1]
	g.Last, g.Bytes = last, g.Bytes+w.bytes
	w.genMu.Unlock()
	w.writtenBytes.Add(w.bytes)
	if !w.more { // half a catalog is cut off again
		w.written.Store(uint64(last))
	}
	clear(w.entries)
	w.buf, w.ends, w.entries, w.bytes = w.buf[:0], w.ends[:0], w.entries[:0], 0
	return nil
}

// count follows the engine's counting, to know when it has made a new segment.
func (w *writer) count() {
	if w.segBytes > w.cfg.SegmentBytes {
		w.segBytes, w.dirDirty = 0, true
	}
	for _, b := range w.entries {
		n := int64(len(b))
		w.segBytes += n + int64(prefixLen(n))
		if w.segBytes >= w.cfg.SegmentBytes {
			w.segBytes, w.dirDirty = 0, true
		}
	}
}

// sync makes durable what was written: the tail segment (the engine has fsynced those before), then the directories that
// name new files.
func (w *writer) sync() *FailedError {
	start := time.Now()
	bytes, written := w.writtenBytes.Load(), w.written.Load()
	if err := w.engine.Sync(); err != nil {
		return &FailedError{"fsync", err}
	}
	if w.dirDirty {
		if err := w.disk.SyncDir(filepath.Join(w.dir, generationName(w.first))); err != nil {
			return &FailedError{"fsync of a generation's directory", err}
		}
		w.dirDirty = false
	}
	if w.rootDirty {
		if err := w.disk.SyncDir(w.dir); err != nil {
			return &FailedError{"fsync of the log's directory", err}
		}
		w.rootDirty = false
	}
	w.stats.syncNanos.Add(int64(time.Since(start)))
	w.durableBytes.Store(bytes)
	w.durable.Store(written)
	w.wake()
	if w.cfg.OnDurable != nil {
		w.cfg.OnDurable(LSN(written))
	}
	return nil
}

// rotate makes the old generation durable, then begins the one of first.
func (w *writer) rotate(first LSN) *FailedError {
	if w.engine != nil {
		if err := w.flush(); err != nil {
			return err
		}
		if err := w.sync(); err != nil {
			return err
		}
		if err := w.engine.Close(); err != nil {
			return &FailedError{"close a generation", err}
		}
		w.engine = nil
	}
	dir := filepath.Join(w.dir, generationName(first))
	if err := w.disk.Mkdir(dir); err != nil {
		return &FailedError{"begin a generation", err}
	}
	engine, err := w.disk.OpenEngine(dir, w.cfg.SegmentBytes)
	if err != nil {
		return &FailedError{"begin a generation", err}
	}
	w.engine, w.first, w.segBytes, w.dirDirty, w.rootDirty = engine, first, 0, true, true
	w.genMu.Lock()
	w.gens = append(w.gens, Generation{First: first, Last: first - 1})
	w.genMu.Unlock()
	w.stats.rotations.Add(1)
	return nil
}

// describeOld fills in what a catalog says of the generation before its own.
func (w *writer) describeOld(ext *extension) error {
	w.genMu.Lock()
	n := len(w.gens)
	old := LSN(0)
	if n > 1 {
		old = w.gens[n-2].First
	}
	w.genMu.Unlock()
	if old == 0 {
		return nil
	}
	segs, err := listSegments(w.disk, filepath.Join(w.dir, generationName(old)))
	if err != nil {
		return err
	}
	ext.segments, ext.listCRC, ext.bytes = summary(segs)
	return nil
}

// fail is the log's last word.
func (w *writer) fail(err error) {
	failure, ok := err.(*FailedError)
	if !ok {
		failure = &FailedError{"write", err}
	}
	w.mu.Lock()
	w.err.Store(failure)
	w.queue = nil
	w.mu.Unlock()
	close(w.failed)
	w.wake()
}
