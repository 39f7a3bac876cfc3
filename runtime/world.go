package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// world is what a Runtime takes from the process around it. The simulator gives it one without goroutines, disk and time.
type world struct {
	log       processLog
	frames    frames
	snapshots snapshotFiles
	storeDisk bus.Disk                      // of the topic store
	do        func(func(*core) error) error // runs a func between two seals
	spawn     func(func())                  // runs a func beside the jobs, which Stop waits for
	now       func() time.Time
	pacer     *pacer                                                // nil paces nobody
	newTimer  func(func()) timer                                    // one that has not been started
	await     func(ctx context.Context, done <-chan struct{}) error // returns nil once done is closed, or ctx's error
	sleep     func(ctx context.Context, d time.Duration) error      // returns nil when d is over, or ctx's error
	supervise func(*job)                                            // makes a job's attempts beside the others, and closes its done behind the last
	sending   func(*sender)                                         // runs a sender beside the jobs, and closes its done when it has returned

	chunkRecords  int // a source gives at most so many between two looks at what else is to do
	snapshotChunk int // about how many bytes a subtask scans between two batches
}

// processLog is the log as a Runtime uses it: *wal.Log, or the simulator's.
type processLog interface {
	frameLog
	ID() wal.LogID
	Catalog() wal.LSN
	Generations() []wal.Generation
	Pending() int64
	WaitDurable(ctx context.Context, lsn wal.LSN) error
	Drop(before wal.LSN) error
	Failed() <-chan struct{}
	Err() error
	Stats() wal.Stats
	Close() error
}

// timer is a *time.Timer, or the simulator's.
type timer interface {
	Reset(d time.Duration) bool
	Stop() bool
}

// snapshotFiles keeps snapshots: files in a folder, or the simulator's memory.
type snapshotFiles interface {
	write(meta checkpoint.SnapshotMeta, bodies [][]byte) (file string, bytes int64, err error)
	read(file string, into restorer) error
	keep(job uint32, oldest checkpoint.Epoch) error // removes those before oldest
	header(file string) (checkpoint.Header, error)
	remove(file string) error

	saveAs(file, savepoint string) error // keeps a snapshot's file under the name of a savepoint too
	savedHeader(savepoint string) (checkpoint.Header, error)
	readSaved(savepoint string, into restorer) error
	checkSaved(savepoint string) error                                                    // reads all of it, for who is about to build on it
	stage(savepoint string) (staged string, err error)                                    // copies it, which may take long; it goes with remove
	beginWith(staged string, job uint32, epoch checkpoint.Epoch) (file string, err error) // makes the copy the first snapshot of a job, at once
	dropSavepoint(savepoint string) error
}

func (rt *Runtime) realWorld(log *wal.Log) world {
	return world{log: log, frames: walFrames{log}, snapshots: snapshotDir(filepath.Join(rt.cfg.DataDir, "snapshots")), storeDisk: bus.OSDisk{}, now: time.Now,
		chunkRecords: chunkRecords, pacer: newPacer(rt.cfg.CatchUpPercent), snapshotChunk: snapshotChunk,
		do: func(f func(*core) error) error { return rt.committer.do(f) },
		spawn: func(f func()) {
			rt.background.Add(1)
			go func() {
				defer rt.background.Done()
				f()
			}()
		},
		await: func(ctx context.Context, done <-chan struct{}) error {
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		sleep: func(ctx context.Context, d time.Duration) error {
			select {
			case <-time.After(d):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		supervise: func(j *job) {
			rt.jobsDone.Add(1)
			go func() {
				defer rt.jobsDone.Done()
				defer close(j.done)
				j.run(j.ctx)
			}()
		},
		sending: func(s *sender) {
			rt.sendDone.Add(1)
			go func() {
				defer rt.sendDone.Done()
				s.run(s.ctx)
			}()
		},
		newTimer: func(f func()) timer {
			t := time.AfterFunc(time.Hour, f)
			t.Stop()
			return t
		}}
}

// snapshotDir is a folder of snapshot files.
type snapshotDir string

func (d snapshotDir) write(meta checkpoint.SnapshotMeta, bodies [][]byte) (file string, bytes int64, err error) {
	w, err := checkpoint.CreateSnapshot(string(d), meta)
	if err != nil {
		return "", 0, err
	}
	for _, body := range bodies {
		if err := w.Write(body); err != nil {
			return "", 0, errors.Join(err, w.Abort())
		}
	}
	path, bytes, err := w.Commit()
	if err != nil {
		return "", 0, errors.Join(err, w.Abort())
	}
	return filepath.Base(path), bytes, nil
}

// read reads and checks the whole file before it gives away the first entry.
func (d snapshotDir) read(file string, into restorer) error {
	return readState(filepath.Join(string(d), file), into)
}

func (d snapshotDir) readSaved(savepoint string, into restorer) error {
	return readState(d.savepoint(savepoint), into)
}

func readState(path string, into restorer) error {
	r, err := checkpoint.OpenSnapshot(path)
	if err != nil {
		return err
	}
	defer r.Close()
	var bodies [][]byte
	for {
		b, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		bodies = append(bodies, b)
	}
	for _, b := range bodies {
		if err := into.applyState(b); err != nil {
			return err
		}
	}
	return nil
}

// removeUnannounced removes the files that a crash kept from being announced: they may hold what never became durable, and
// would be counted among those that are kept.
func (d snapshotDir) removeUnannounced(l *ledger) error {
	files, err := checkpoint.ListSnapshots(string(d))
	if err != nil {
		return err
	}
	for _, f := range files {
		j := l.Jobs[f.Job]
		if j != nil && slices.ContainsFunc(j.Snapshots, func(s snapshotEntry) bool { return s.File == filepath.Base(f.Path) }) {
			continue
		}
		if err := os.Remove(f.Path); err != nil {
			return fmt.Errorf("runtime: removing a snapshot that was not announced: %w", err)
		}
	}
	saved, err := os.ReadDir(d.savepoints())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, f := range saved {
		name, is := strings.CutSuffix(f.Name(), ".savepoint")
		if l.Savepoints[name] != nil || !is && !strings.HasSuffix(f.Name(), ".tmp") {
			continue
		}
		err = errors.Join(err, os.Remove(filepath.Join(d.savepoints(), f.Name())))
	}
	if err != nil {
		return fmt.Errorf("runtime: removing savepoints that were not announced: %w", err)
	}
	return nil
}

// savepoints is where savepoints are: beside the snapshots.
func (d snapshotDir) savepoints() string { return filepath.Join(filepath.Dir(string(d)), "savepoints") }

func (d snapshotDir) savepoint(name string) string {
	return filepath.Join(d.savepoints(), name+".savepoint")
}

func (d snapshotDir) saveAs(file, savepoint string) error {
	if err := os.MkdirAll(d.savepoints(), 0o700); err != nil {
		return fmt.Errorf("runtime: the folder of savepoints: %w", err)
	}
	if err := checkpoint.CopySnapshot(filepath.Join(string(d), file), d.savepoint(savepoint)); err != nil {
		return err
	}
	if err := d.checkSaved(savepoint); err != nil { // people build on it when nothing else is left
		return errors.Join(fmt.Errorf("reading it back: %w", err), d.dropSavepoint(savepoint))
	}
	return nil
}

func (d snapshotDir) checkSaved(savepoint string) error {
	return checkpoint.VerifySnapshot(d.savepoint(savepoint))
}

func (d snapshotDir) savedHeader(savepoint string) (checkpoint.Header, error) {
	return headerIn(d.savepoint(savepoint))
}

func (d snapshotDir) header(file string) (checkpoint.Header, error) {
	return headerIn(filepath.Join(string(d), file))
}

func headerIn(path string) (checkpoint.Header, error) {
	r, err := checkpoint.OpenSnapshot(path)
	if err != nil {
		return checkpoint.Header{}, err
	}
	return r.Meta().Header, r.Close()
}

func (d snapshotDir) stage(savepoint string) (string, error) {
	staged := fmt.Sprintf("begin-%016x.tmp", rand.Uint64())
	return staged, checkpoint.StageSnapshot(d.savepoint(savepoint), filepath.Join(string(d), staged))
}

func (d snapshotDir) beginWith(staged string, job uint32, epoch checkpoint.Epoch) (string, error) {
	file := checkpoint.SnapshotName(job, epoch)
	return file, checkpoint.NameSnapshot(filepath.Join(string(d), staged), filepath.Join(string(d), file))
}

func (d snapshotDir) dropSavepoint(savepoint string) error {
	if err := os.Remove(d.savepoint(savepoint)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("runtime: removing a savepoint: %w", err)
	}
	return nil
}

func (d snapshotDir) remove(file string) error {
	if err := os.Remove(filepath.Join(string(d), file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("runtime: removing a snapshot: %w", err)
	}
	return nil
}

func (d snapshotDir) keep(job uint32, oldest checkpoint.Epoch) error {
	_, err := checkpoint.KeepSnapshots(string(d), job, oldest)
	return err
}
