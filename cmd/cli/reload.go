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
	names []string  // of the jobs that the files had last
	left  []string  // jobs that no file has any more, and that are still there
	watch bool      // a job that is no more in the files is removed; else it is stopped
	again time.Time // when those are tried again to be let go
	pause time.Duration
	told  map[string]string // what is said of jobs that could not be
	hup   chan os.Signal
	taken string    // what look gave of the files that were read last
	retry time.Time // when they are taken again, for an outside of theirs was away; zero where it was not
	wait  time.Duration
	said  string // why they were not taken, as it was said last

	options runtime.ApplyOptions
}

// begin looks at the files, and takes SIGHUP. It comes before the files are read: what changes, or is asked for, between that
// and run is seen by run.
func (r *reloader) begin() {
	r.hup = make(chan os.Signal, 1)
	signal.Notify(r.hup, syscall.SIGHUP)
	r.taken = r.look()
}

// run reloads at each SIGHUP and, with watch, when the files change, until ctx ends.
func (r *reloader) run(ctx context.Context) {
	tick := time.NewTicker(watchLook)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hup:
			r.taken, r.wait, r.said = r.look(), 0, "" // who asks is answered
			r.reload(ctx)
		case <-tick.C:
			if len(r.left) > 0 && time.Now().After(r.again) {
				r.leave(ctx)
			}
			if !r.watch {
				continue
			}
			switch now := r.look(); {
			case now == last && now != r.taken:
				r.taken, r.wait, r.said = now, 0, "" // what is wrong now is said anew
				r.reload(ctx)
			case now == r.taken && !r.retry.IsZero() && time.Now().After(r.retry):
				r.reload(ctx)
			default:
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
	r.retry = time.Time{}
	if r.p.listener != nil {
		if err := r.p.listener.Reload(); err != nil {
			logger.Error("the files of the token and the certificates are not taken; those read before stay", "err", err)
		}
	}
	if len(r.paths) == 0 {
		logger.Info("there are no files with jobs to reload")
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
	leaving := slices.DeleteFunc(slices.Concat(r.left, r.names), func(name string) bool { return slices.Contains(names, name) })
	slices.Sort(leaving)
	leaving = slices.Compact(leaving)
	res, err := r.take(ctx, defs, leaving)
	var refused *runtime.ApplyError
	if r.watch && errors.As(err, &refused) && refused.Outside {
		if text := err.Error(); text != r.said {
			r.said = text
			logger.Error("the definitions are not taken; what runs goes on", "err", err, "do", "see to that, and they are taken: it is tried again and again; or mend the file")
		}
		r.wait = min(max(2*r.wait, leaveLook), leaveLookMax)
		r.retry = time.Now().Add(r.wait)
		return
	}
	r.wait, r.said = 0, ""
	if err != nil {
		logger.Error("the definitions are not taken; what runs goes on", "err", err, "do", hint(err, leaving))
		return
	}
	r.left, r.pause = leaving, 0
	for _, d := range res.Jobs {
		if d.Action != runtime.ActionUnchanged {
			logger.Info("taken from the files", "job", d.Job, "action", d.Action)
		}
	}
	r.names = names
	r.leave(ctx)
	logger.Info("reloaded", "jobs", len(js))
}

// take applies what the files say. New jobs begin before those go that no file has any more, so that a topic has a writer all
// the time; but for what only one of them can have, such as a file that both write: then those go first.
func (r *reloader) take(ctx context.Context, defs []runtime.Definition, leaving []string) (runtime.ApplyResult, error) {
	o := r.options
	res, err := r.p.rt.Apply(ctx, defs, o)
	if err == nil || !r.watch || len(leaving) == 0 {
		return res, err
	}
	o.DryRun, o.Leaving = true, leaving
	if _, alone := r.p.rt.Apply(ctx, defs, o); alone != nil {
		return res, alone // that they stay is not what keeps the others from coming
	}
	for _, name := range leaving {
		r.gone(ctx, name)
	}
	return r.p.rt.Apply(ctx, defs, r.options)
}

// hint says what can be done about what Apply has refused.
func hint(err error, leaving []string) string {
	var loss *runtime.StateLossError
	var other *runtime.OriginError
	var unsent *runtime.UnsentError
	var refused *runtime.ApplyError
	switch {
	case errors.As(err, &unsent):
		return "job apply FILE --adopt --drop-unsent; or start again with --drop-unsent"
	case errors.As(err, &refused) && refused.Outside:
		return "see to that, and reload again; or mend the file"
	case errors.As(err, &loss):
		return "job apply FILE --adopt --allow-state-loss; or start again with --allow-state-loss"
	case errors.As(err, &other):
		return "job remove " + other.Job + ", or take its file away; or start again with --adopt"
	case len(leaving) > 0:
		return "mend the files, or job remove what no file defines any more: " + strings.Join(leaving, ", ")
	}
	return "mend the file"
}

// How long after jobs could not go that no file has any more it is tried again: each time twice as long, for each gives the job a
// last barrier.
const (
	leaveLook    = 2 * time.Second
	leaveLookMax = time.Minute
)

// leave removes or stops the jobs that no file has any more. Those that cannot go now are tried again.
func (r *reloader) leave(ctx context.Context) {
	r.left = slices.DeleteFunc(r.left, func(name string) bool { return r.gone(ctx, name) })
	r.pause = min(max(2*r.pause, leaveLook), leaveLookMax)
	r.again = time.Now().Add(r.pause)
}

// gone removes or stops a job that the files have no more. It returns false where that could not be done.
func (r *reloader) gone(ctx context.Context, name string) bool {
	logger := r.p.logger.With("job", name)
	err := r.letGo(ctx, name)
	var phase *runtime.PhaseError
	switch {
	case err == nil, errors.Is(err, runtime.ErrNoJob), errors.As(err, &phase): // an ended one rests already
		delete(r.told, name)
		return true
	}
	if do := r.goes(name, err); ctx.Err() == nil && r.told[name] != do {
		r.told[name] = do
		logger.Warn("no file defines it any more, and it cannot go yet; that is tried again", "err", err, "do", do)
	}
	return false
}

// goes says how a job can be made to go that could not. What it kept is lost by none of it that need not lose it.
func (r *reloader) goes(name string, err error) string {
	if errors.Is(err, runtime.ErrNotKept) {
		return "see to that; or job remove " + name + ", if what it keeps may be lost"
	}
	keep := " --keep-state"
	if info, err := r.p.rt.JobDefinition(name); err == nil && info.Phase == runtime.PhaseEnded {
		keep = "" // it has none
	}
	return "job remove " + name + keep + " --drop-unsent, if what it has yet to send may be lost"
}

func (r *reloader) letGo(ctx context.Context, name string) error {
	logger := r.p.logger.With("job", name)
	info, err := r.p.rt.JobDefinition(name)
	switch {
	case err != nil:
		return err
	case info.Origin != runtime.OriginFile:
		logger.Info("no file defines it any more: it is the API's, and stays")
		return nil
	case !r.watch:
		if err := r.p.rt.StopJob(ctx, name, runtime.StopOptions{Missing: true}); err != nil {
			return err
		}
		logger.Warn("no file defines it any more: it is stopped, with its state, until one does", "do", "job remove "+name+", if it is to go")
		return nil
	}
	res, err := r.p.rt.RemoveJob(ctx, name, runtime.RemoveOptions{KeepState: info.Phase != runtime.PhaseEnded, Unasked: true})
	if err == nil && res.Savepoint != "" {
		logger.Warn("no file defines it any more: it is removed, and what it kept is a savepoint", "savepoint", res.Savepoint,
			"do", "job apply FILE --from "+res.Savepoint+" begins with it, also under another name; job savepoints delete "+res.Savepoint+" lets go of it")
	}
	return err
}
