package wal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// Open opens the log in dir, which it makes if it is missing, and holds its lock until Close. It reads the newest
// generation to the first bytes that are not the frame due. What lies there is a tear, and is cut off, unless a whole
// frame behind it says that the frame due was durable: then nothing is changed and the error is a [*DamagedError].
// Another holder of the lock is a [*LockedError].
//
// In a new log Last is 0 and the first frame must come from Rotate.
func Open(dir string, cfg Config) (*Log, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("wal: open: %w", err)
	}
	if err := makeDir(cfg.disk, dir); err != nil {
		return nil, fmt.Errorf("wal: open: %w", err)
	}
	l := &Log{dir: dir, cfg: cfg, disk: cfg.disk, failed: make(chan struct{}), done: make(chan struct{})}
	l.ready.L = &l.mu
	if _, ok := cfg.disk.(locker); ok {
		if l.lock, err = lock(dir); err != nil {
			return nil, err
		}
	}
	w, err := l.recover()
	if err != nil {
		if l.lock != nil {
			l.lock.Close()
		}
		if !errors.As(err, new(*DamagedError)) && !errors.As(err, new(*CorruptError)) {
			err = fmt.Errorf("wal: open: %w", err)
		}
		return nil, err
	}
	cfg.Logger.Info("log opened", "dir", dir, "id", l.id.String(), "found", l.recovered.String())
	go w.run()
	return l, nil
}

// recover finds the tail, cuts what is torn, and makes the rest durable.
func (l *Log) recover() (*writer, error) {
	start := time.Now()
	gens, dropped, err := listGenerations(l.disk, l.dir)
	if err == nil {
		err = unfinished(l.disk, l.dir)
	}
	if err != nil {
		return nil, err
	}
	for _, name := range dropped {
		if err := removeAll(l.disk, filepath.Join(l.dir, name)); err != nil {
			return nil, err
		}
	}
	s, err := scanLog(l.disk, l.dir, gens)
	if err != nil {
		return nil, err
	}
	l.recovered = Recovery{New: s.newest == nil, Dropped: len(dropped), ScanDuration: time.Since(start)}
	if s.torn != nil {
		l.recovered.CutAt, l.recovered.CutBytes, l.recovered.CutFrames = s.torn.First, s.cut.bytes, s.cut.frames
		l.recovered.CutBecause = s.torn
	}
	if err := l.cutTail(s); err != nil {
		return nil, err
	}
	l.room = room{disk: l.disk, dir: l.dir, margin: 2 * l.cfg.SegmentBytes, reserve: l.cfg.ReserveBytes}
	if err := l.room.open(); err != nil {
		return nil, err
	}
	w := &writer{Log: l}
	if s.newest == nil {
		l.idFirst = 1
		rand.Read(l.id[:])
		return w, nil
	}
	l.id, l.idFirst, l.ancestors, l.gens = s.id, s.idFirst, s.ancest, s.gens
	l.last, l.genBytes = s.newest.last(), s.newest.bytes
	l.recovered.Last = l.last
	l.durable.Store(uint64(l.last))
	l.written.Store(uint64(l.last))
	return w, w.resume(s.newest)
}

// locker marks the disks whose directories other processes can see.
type locker interface{ lockable() }

func (osDisk) lockable() {}

// cutTail removes what lies behind the tail, and makes durable what lies before it. Later files go first, so that a
// crash in between leaves the same tail to be found.
func (l *Log) cutTail(s *logScan) error {
	if s.lost != nil {
		l.recovered.Generation = s.removeGen
		l.recovered.CutSegments = len(s.lost.segments)
		if err := removeAll(l.disk, filepath.Join(l.dir, generationName(s.removeGen))); err != nil {
			return err
		}
	}
	g := s.newest
	if g == nil {
		return l.disk.SyncDir(l.dir)
	}
	gdir := filepath.Join(l.dir, generationName(g.first))
	for i := len(g.segments) - 1; i > g.end.seg; i-- {
		if err := l.disk.Remove(filepath.Join(gdir, segmentName(g.segments[i].index))); err != nil {
			return err
		}
		l.recovered.CutSegments++
	}
	tail := filepath.Join(gdir, segmentName(g.segments[g.end.seg].index))
	if err := l.disk.Truncate(tail, g.end.off); err != nil {
		return err
	}
	var err error
	if l.recovered.Rewritten, err = rewrite(l.disk, gdir, g); err != nil {
		return err
	}
	for _, dir := range []string{gdir, l.dir, filepath.Dir(l.dir)} {
		// The one above is not ours to insist on: it may not be readable to us.
		if err := l.disk.SyncDir(dir); err != nil && (dir == gdir || dir == l.dir || !errors.Is(err, fs.ErrPermission)) {
			return err
		}
	}
	return nil
}

// rewrite writes the frames again that no frame calls durable, and fsyncs them; it returns their bytes. An fsync alone
// would not do: one that failed before the process died may have left pages that are marked clean and never reached the
// disk (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
func rewrite(d disk, gdir string, g *generationScan) (bytes int64, err error) {
	if len(g.unmarked) == 0 {
		return 0, nil
	}
	from := g.unmarked[0]
	for i := from.seg; i <= g.end.seg; i++ {
		to := g.segments[i].size
		if i == g.end.seg {
			to = g.end.off
		}
		if err := d.Rewrite(filepath.Join(gdir, segmentName(g.segments[i].index)), from.off, to); err != nil {
			return bytes, err
		}
		bytes += to - from.off
		from.off = 0
	}
	return bytes, nil
}
