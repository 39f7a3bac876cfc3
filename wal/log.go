package wal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
)

// Log is a log opened for appending.
type Log struct {
	dir  string
	cfg  Config
	disk disk
	lock *os.File

	id        LogID
	idFirst   LSN // the first LSN under this id
	ancestors []Ancestor
	recovered Recovery

	durable      atomic.Uint64
	written      atomic.Uint64
	durableBytes atomic.Int64 // appended bytes that are durable, since Open
	writtenBytes atomic.Int64
	stats        counters

	failed chan struct{}
	err    atomic.Pointer[FailedError]
	done   chan struct{} // closed when the writer has returned

	mu       sync.Mutex // never held over an fsync
	ready    sync.Cond  // there is something in queue, or closing
	queue    []request
	last     LSN
	appended int64         // bytes since Open
	genBytes int64         // of the generation that the next frame goes to
	catalog  int64         // bytes of its catalog, all of it; 0 is not known
	moved    chan struct{} // closed when durable moves; nil when nobody waits
	closing  bool
	room     room

	genMu  sync.Mutex // guards gens; held for no I/O
	gens   []Generation
	dropMu sync.Mutex // one Drop at a time

	closeOnce sync.Once
	closeErr  error
}

// request is a frame in the queue.
type request struct {
	lsn      LSN
	kind     FrameKind // KindCatalog starts a generation
	sections []Section
	bytes    int64 // in the segment
	parts    int   // of a catalog: how many of the frames behind it are the rest of it
	more     bool  // the frame behind it belongs to the same catalog
}

// ID returns the log's id.
func (l *Log) ID() LogID { return l.id }

// Ancestors returns the ids the log had before, oldest first.
func (l *Log) Ancestors() []Ancestor { return slices.Clone(l.ancestors) }

// Last returns the last LSN given out; what has one is sealed.
func (l *Log) Last() LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Durable returns the last LSN that any crash leaves in the log.
func (l *Log) Durable() LSN { return LSN(l.durable.Load()) }

// Written returns the last LSN that was given to the operating system; the death of the process leaves it in the log.
func (l *Log) Written() LSN { return LSN(l.written.Load()) }

// Pending returns the bytes appended and not yet durable.
func (l *Log) Pending() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.appended - l.durableBytes.Load()
}

// Recovered says what Open did.
func (l *Log) Recovered() Recovery { return l.recovered }

// Err returns the log's failure, or nil.
func (l *Log) Err() error {
	if e := l.err.Load(); e != nil {
		return e
	}
	return nil
}

// Failed returns a channel that is closed when the log fails.
func (l *Log) Failed() <-chan struct{} { return l.failed }

// Append gives a frame the next LSN and queues it for the writer; it does not wait for the disk. The sections' bodies
// belong to the log until the LSN is durable and must not change. Errors: [ErrTooLarge], [ErrNoRoom], [ErrBacklog],
// [ErrNoFrames], [ErrKind], [ErrClosed], all with nothing taken; a [*FailedError] is final.
func (l *Log) Append(kind FrameKind, sections []Section) (LSN, error) {
	if kind <= KindCatalog || kind == KindCatalogPart {
		return 0, ErrKind
	}
	return l.append([]request{{kind: kind, sections: sections}}, l.cfg.FrameBytes, false)
}

// AppendSmall is Append for what frees space or says what was done outside: it passes Config.PendingBytes and the check
// for room, and where the disk is full the reserve's space is given up for it. At most Config.SmallBytes.
func (l *Log) AppendSmall(kind FrameKind, sections []Section) (LSN, error) {
	if kind <= KindCatalog || kind == KindCatalogPart {
		return 0, ErrKind
	}
	return l.append([]request{{kind: kind, sections: sections}}, l.cfg.SmallBytes, true)
}

// Room reports, by [ErrNoRoom], that frames of so many bytes in all would not be taken now: for what is to be appended
// wholly or not at all.
func (l *Log) Room(bytes int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	return l.room.check(bytes, l.appended-l.writtenBytes.Load())
}

// Rotate starts a new generation with this catalog as its first frame, in its turn behind what is queued, and returns that
// frame's LSN. A catalog too long for one frame goes on in those of rest, of KindCatalogPart, which follow at once: a crash
// leaves all of it or nothing, and no LSN in the midst of it is ever durable by itself. It passes the check for room like
// AppendSmall: without it nothing could be dropped from a full disk.
func (l *Log) Rotate(catalog []Section, rest ...[]Section) (LSN, error) {
	reqs := make([]request, 0, 1+len(rest))
	reqs = append(reqs, request{kind: KindCatalog, sections: catalog, parts: len(rest), more: len(rest) > 0})
	for i, sections := range rest {
		reqs = append(reqs, request{kind: KindCatalogPart, sections: sections, more: i+1 < len(rest)})
	}
	if len(rest) > maxParts {
		return 0, fmt.Errorf("%w: a catalog of %d frames", ErrTooLarge, len(reqs))
	}
	return l.append(reqs, l.cfg.FrameBytes, true)
}

// measure sets the frames' lengths and returns their sum.
func (l *Log) measure(reqs []request, bytesMax int) (total int64, err error) {
	for i := range reqs {
		r := &reqs[i]
		var ext *extension
		if r.kind == KindCatalog {
			ext = &extension{ancestors: l.ancestors, parts: r.parts}
		}
		n := frameLen(ext, r.sections)
		if n > int64(bytesMax) || len(r.sections) > l.cfg.MaxSections {
			return 0, fmt.Errorf("%w: %d bytes of %d, %d sections of %d", ErrTooLarge, n, bytesMax, len(r.sections),
				l.cfg.MaxSections)
		}
		r.bytes = n + int64(prefixLen(n))
		total += r.bytes
	}
	return total, nil
}

// append queues frames, all of them or none, and returns the LSN of the first.
func (l *Log) append(reqs []request, bytesMax int, small bool) (LSN, error) {
	n, err := l.measure(reqs, bytesMax)
	if err != nil {
		return 0, err
	}
	kind := reqs[0].kind
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return 0, err
	}
	if l.last == 0 && kind != KindCatalog {
		return 0, ErrNoFrames
	}
	if !small && l.appended-l.durableBytes.Load()+n > l.cfg.PendingBytes {
		l.stats.stalls.Add(1)
		return 0, ErrBacklog
	}
	check := l.room.check
	if small {
		check = l.room.checkSmall
	}
	if err := check(n, l.appended-l.writtenBytes.Load()); err != nil {
		l.stats.stalls.Add(1)
		return 0, err
	}
	if kind == KindCatalog {
		l.genBytes, l.catalog = 0, n
	}
	l.room.taken += n
	l.appended += n
	l.genBytes += n
	first := l.last + 1
	for _, r := range reqs {
		l.last++
		r.lsn = l.last
		l.queue = append(l.queue, r)
	}
	l.stats.appends.Add(uint64(len(reqs)))
	l.stats.bytes.Add(uint64(n))
	l.ready.Signal()
	return first, nil
}

// usable returns why nothing more can be done with the log; mu is held.
func (l *Log) usable() error {
	if err := l.Err(); err != nil {
		return err
	}
	if l.closing {
		return ErrClosed
	}
	return nil
}

// RotateDue reports whether the current generation has reached Config.GenerationBytes, counting what is queued, and is
// catalogShare times as long as its catalog: one that outgrows short generations, as it names what each of them holds, would
// have every frame begin the next, and grow with each of them.
func (l *Log) RotateDue() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.genBytes >= max(l.cfg.GenerationBytes, catalogShare*l.catalog)
}

// WaitDurable returns nil once lsn is durable. It waits for an LSN that was not given out yet, too.
func (l *Log) WaitDurable(ctx context.Context, lsn LSN) error {
	for {
		if l.Durable() >= lsn {
			return nil
		}
		l.mu.Lock()
		if l.Durable() >= lsn {
			l.mu.Unlock()
			return nil
		}
		if err := l.usable(); err != nil && (err != ErrClosed || lsn > l.last) {
			l.mu.Unlock()
			return err
		}
		if l.moved == nil {
			l.moved = make(chan struct{})
		}
		moved := l.moved
		l.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wake lets those go on who wait for durable to move, or for the log's end.
func (l *Log) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
}

// Generations returns the generations, oldest first. The last one grows.
func (l *Log) Generations() []Generation {
	l.genMu.Lock()
	defer l.genMu.Unlock()
	return slices.Clone(l.gens)
}

// Catalog returns the LSN of the newest durable catalog, 0 when there is none.
func (l *Log) Catalog() LSN {
	l.genMu.Lock()
	defer l.genMu.Unlock()
	durable := l.Durable()
	for _, g := range slices.Backward(l.gens) {
		if g.First <= durable {
			return g.First
		}
	}
	return 0
}

// Drop deletes every generation that ends before before, never the newest. The caller has made a durable frame that
// says so first. Readers inside them get [ErrGone].
func (l *Log) Drop(before LSN) error {
	l.dropMu.Lock()
	defer l.dropMu.Unlock()
	l.mu.Lock()
	err := l.usable()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		l.genMu.Lock()
		if len(l.gens) < 2 || l.gens[0].Last >= before || l.gens[1].First > l.Durable() {
			l.genMu.Unlock()
			return nil
		}
		first := l.gens[0].First
		l.gens = slices.Clone(l.gens[1:])
		l.genMu.Unlock()
		// Renamed first, so that half of it is never taken for a damaged generation; one by one, so that a power cut
		// cannot keep an older one and lose a newer.
		name := filepath.Join(l.dir, generationName(first))
		if err := l.disk.Rename(name, name+dropSuffix); err != nil {
			return fmt.Errorf("wal: drop generation %d: %w", first, err)
		}
		if err := l.disk.SyncDir(l.dir); err != nil {
			return fmt.Errorf("wal: drop generation %d: %w", first, err)
		}
		if err := removeAll(l.disk, name+dropSuffix); err != nil {
			return fmt.Errorf("wal: drop generation %d: %w", first, err)
		}
		l.stats.dropped.Add(1)
	}
}

// Close writes and fsyncs what is queued, and gives the directory free. It returns the log's failure if it has one. Only
// the first call does anything.
func (l *Log) Close() error {
	l.closeOnce.Do(func() {
		l.mu.Lock()
		l.closing = true
		l.ready.Signal()
		l.mu.Unlock()
		<-l.done
		l.wake()
		l.closeErr = l.Err()
		if l.lock != nil {
			if err := l.lock.Close(); l.closeErr == nil {
				l.closeErr = err
			}
		}
	})
	return l.closeErr
}

func prefixLen(n int64) int {
	k := 1
	for ; n >= 0x80; n >>= 7 {
		k++
	}
	return k
}
