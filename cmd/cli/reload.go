package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// watchLook is how often --watch looks at the files. What has changed is taken up once it has been the same twice in a row: an
// editor that writes in pieces, or puts another file in the place of the old one, is done by then.
const watchLook = 400 * time.Millisecond

// reloader makes a running process's jobs what its files say.
type reloader struct {
	p     *process
	load  func() ([]*jobs.Job, error)
	paths []string
	names []string // of the jobs that the files had last
	ours  []string // jobs that were stopped because no file had them
	watch bool     // a job that is no more in the files is removed; else it is stopped
}

// run reloads at each SIGHUP and, with watch, when the files change, until ctx ends.
func (r *reloader) run(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(watchLook)
	defer tick.Stop()
	taken, last := r.look(), ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			taken = r.look()
			r.reload(ctx)
		case <-tick.C:
			if !r.watch {
				continue
			}
			if now := r.look(); now == last && now != taken {
				taken = now
				r.reload(ctx)
			} else {
				last = now
			}
		}
	}
}

// look says which files there are and how they are, through links: those of a ConfigMap are links into a folder that is swapped.
func (r *reloader) look() string {
	var b strings.Builder
	one := func(name string) {
		if info, err := os.Stat(name); err != nil {
			fmt.Fprintf(&b, "%s %v\n", name, err)
		} else if st, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintf(&b, "%s %d %d %d %d\n", name, info.Size(), info.ModTime().UnixNano(), st.Dev, st.Ino)
		}
	}
	for _, p := range r.paths {
		entries, err := os.ReadDir(p)
		if err != nil { // a file
			one(p)
			continue
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext == ".yaml" || ext == ".yml" {
				one(filepath.Join(p, e.Name()))
			}
		}
	}
	return b.String()
}

// reload takes up what the files say now. Where that is wrong in any way, it is said, and what runs goes on.
func (r *reloader) reload(ctx context.Context) {
	logger := r.p.logger
	if len(r.paths) == 0 {
		logger.Info("there are no files to reload")
		return
	}
	js, err := r.load()
	if err != nil {
		fmt.Fprintln(r.p.app.stderr, strings.TrimRight(err.Error(), "\n"))
		logger.Error("the definitions are not taken: they have mistakes; what runs goes on")
		return
	}
	var defs []runtime.Definition
	var names []string
	for _, j := range js {
		defs, names = append(defs, runtime.Definition{Job: j, Origin: runtime.OriginFile}), append(names, j.Name)
	}
	res, err := r.p.rt.Apply(ctx, defs, runtime.ApplyOptions{})
	if err != nil {
		logger.Error("the definitions are not taken; what runs goes on", "err", err)
		return
	}
	for _, d := range res.Jobs {
		if d.Action != runtime.ActionUnchanged {
			logger.Info("taken from the files", "job", d.Job, "action", d.Action)
		}
	}
	for _, name := range r.names {
		if !slices.Contains(names, name) && !slices.Contains(r.ours, name) && !r.gone(ctx, name) {
			names = append(names, name) // next time again
		}
	}
	r.names = names
	r.ours = slices.DeleteFunc(r.ours, func(name string) bool { return slices.Contains(names, name) && r.back(ctx, name) })
	logger.Info("reloaded", "jobs", len(js))
}

// gone removes or stops a job that the files have no more. It returns false where that could not be done.
func (r *reloader) gone(ctx context.Context, name string) bool {
	logger := r.p.logger.With("job", name)
	var err error
	if r.watch {
		_, err = r.p.rt.RemoveJob(ctx, name, runtime.RemoveOptions{})
	} else if err = r.p.rt.StopJob(ctx, name, runtime.StopOptions{}); err == nil {
		r.ours = append(r.ours, name)
		logger.Warn("no file defines it any more: it is stopped, with its state")
	}
	var phase *runtime.PhaseError
	switch {
	case err == nil, errors.Is(err, runtime.ErrNoJob), errors.As(err, &phase): // an ended one rests already
		return true
	}
	logger.Error("no file defines it any more, and it goes on", "err", err)
	return false
}

// back lets a job go on that a file has again.
func (r *reloader) back(ctx context.Context, name string) bool {
	err := r.p.rt.ResumeJob(ctx, name)
	if err != nil {
		r.p.logger.Error("a file defines it again, and it cannot go on", "job", name, "err", err)
	}
	return err == nil
}
