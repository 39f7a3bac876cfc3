package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime/admin"
	"github.com/sidestream-dev/sidestream/wal"
)

const (
	askMax       = 3 * time.Second        // an answer of the process that takes longer is said
	freeLeast    = 64 << 20               // bytes on the disk: segments, reserve, what is queued
	freeWanted   = 1 << 30                // below it is said
	syncs        = 15                     // measured
	syncSlow     = 20 * time.Millisecond  // a commit is no faster
	syncFast     = 20 * time.Microsecond  // no disk is so fast: nothing is kept
	filesLeast   = 1024                   // open at a time
	clockBack    = time.Minute            // how far the log may be ahead of the clock
	doctorPrefix = ".sidestream-doctor-*" // the file that is measured with
)

func (a *app) doctor() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "doctor [FILE|DIR...]",
		Short: "Look for what is wrong: the machine, the data directory, the process, its jobs and topics",
		Long: `Doctor checks the data directory and its disk (permissions, free space, how long an fsync takes, measured with a small file
that goes again), the limit of open files, the clock, the log, the process and its socket, the definitions it is given, and every
job and topic of the process. What is not well is named with what to do. With --context of a server elsewhere only what the
server says is looked at. The exit code is 1 where something has failed, 0 otherwise, also with warnings.`,
		Example: `  sidestream doctor
  sidestream doctor jobs/ -o json     # definitions too
  sidestream doctor --full            # reads the whole log`,
	}, a.doDoctor)
	c.Flags().Bool("full", false, "read and check every frame of the log, not only its newest generation")
	take(c, "data-dir", "socket", "context", "allow-env")
	prints(c)
	c.ValidArgsFunction = definitionFiles
	return c
}

func (a *app) doDoctor(cmd *cobra.Command, args []string) error {
	at, err := a.site(cmd)
	if err != nil {
		return err
	}
	d := &doctor{app: a, cmd: cmd}
	if at.Socket != "" && a.from["data-dir"].rank == byDefault {
		at.DataDir = ""
		if run := filepath.Dir(at.Socket); filepath.Base(run) == "run" {
			at.DataDir = filepath.Dir(run) // whose default place it is
		}
	}
	if at.DataDir != "" {
		d.directory(at.DataDir)
	}
	if at.Remote.URL == "" {
		d.files()
	}
	d.process(cmd.Context(), at)
	if at.DataDir != "" {
		full, _ := cmd.Flags().GetBool("full")
		d.log(at.DataDir, full)
	}
	if len(args) > 0 {
		d.definitions(args)
	}
	if text(cmd, "output") == "table" {
		var b strings.Builder
		writeFindings(&b, d.found, colored(cmd, a.stdout))
		_, err = io.WriteString(a.stdout, b.String())
	} else {
		err = show(a, cmd, view[finding]{name: func(f finding) string { return f.Status + " " + f.Check }}, d.found)
	}
	if err == nil && worst(d.found) == isFail {
		n := len(slices.DeleteFunc(slices.Clone(d.found), func(f finding) bool { return f.Status != isFail }))
		err = withCode(exitFailed, fmt.Errorf("%d %s failed", n, plural(n, "check has", "checks have")))
	}
	return err
}

// doctor collects findings.
type doctor struct {
	*app
	cmd   *cobra.Command
	alive bool // a process answers
	found []finding
}

func (d *doctor) say(check, status, do, format string, args ...any) {
	d.found = append(d.found, finding{check, status, fmt.Sprintf(format, args...), do})
}

// directory looks at the data directory, its disk and the clock.
func (d *doctor) directory(dir string) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.say("data directory", isWarn, d.typed("run", "FILE|DIR...", " makes it; or name another with --data-dir"), "there is none at %s", dir)
		dir = filepath.Dir(dir) // whose disk it would be on
	case err != nil:
		d.say("data directory", isFail, "mend its permissions, or name another with --data-dir", "%v", err)
		return
	case !info.IsDir():
		d.say("data directory", isFail, "name another with --data-dir", "%s is a file", dir)
		return
	case unix.Access(dir, unix.W_OK|unix.X_OK) != nil:
		d.say("data directory", isFail, fmt.Sprintf("run as its owner, or chown %s", dir), "%s cannot be written by this user (mode %04o)", dir, info.Mode().Perm())
	case info.Mode().Perm()&0o022 != 0:
		d.say("data directory", isWarn, "chmod go-w "+dir, "others may write %s (mode %04o)", dir, info.Mode().Perm())
	default:
		d.say("data directory", isOK, "", "%s, mode %04o", dir, info.Mode().Perm())
	}
	d.disk(dir)
	d.clock(dir)
}

func (d *doctor) disk(dir string) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		d.say("disk", isWarn, "", "how much room there is cannot be found out: %v", err)
		return
	}
	free, total := int64(s.Bavail)*int64(s.Bsize), int64(s.Blocks)*int64(s.Bsize)
	status, do := isOK, ""
	switch {
	case free < freeLeast:
		status, do = isFail, "free space: jobs wait until there is some"
	case free < freeWanted:
		status, do = isWarn, "free space, before jobs wait for it"
	}
	d.say("disk", status, do, "%s of %s are free", sized(free), sized(total))
	took, err := measureSync(dir)
	switch {
	case err != nil:
		d.say("fsync", isWarn, "", "it cannot be measured: %v", err)
	case took > syncSlow:
		d.say("fsync", isWarn, "use another disk, or a longer --commit-interval", "%v at the median of %d: each commit takes that long", took.Round(10*time.Microsecond), syncs)
	case took < syncFast:
		d.say("fsync", isWarn, "use a disk", "%v at the median of %d: nothing is kept over a power cut here (a RAM disk?)", took, syncs)
	default:
		d.say("fsync", isOK, "", "%v at the median of %d", took.Round(10*time.Microsecond), syncs)
	}
}

// measureSync returns the median of how long it takes to append 4 KiB to a file and have it on the disk.
func measureSync(dir string) (took time.Duration, err error) {
	f, err := os.CreateTemp(dir, doctorPrefix)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	var all []time.Duration
	for range syncs {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			return 0, err
		}
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// clock compares the clock with the newest file of the log.
func (d *doctor) clock(dir string) {
	newest := time.Time{}
	_ = filepath.WalkDir(filepath.Join(dir, "wal"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read is for another check
		}
		if info, err := e.Info(); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
		return nil
	})
	if ahead := time.Until(newest); ahead > clockBack {
		d.say("clock", isWarn, "set the clock: ages, timeouts of tokens and processing time go by it", "the log was written %s from now: the clock has gone back", brief(ahead))
		return
	}
	d.say("clock", isOK, "", "%s, and nothing in the log is newer", time.Now().UTC().Format(time.RFC3339))
}

// files looks at the limit of open files.
func (d *doctor) files() {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		d.say("open files", isWarn, "", "%v", err)
		return
	}
	if lim.Cur < filesLeast {
		d.say("open files", isWarn, fmt.Sprintf("ulimit -n %d, or LimitNOFILE= of the service", 4*filesLeast), "at most %d: files, sockets and the log share them", lim.Cur)
		return
	}
	d.say("open files", isOK, "", "at most %d", lim.Cur)
}

// log looks at the log: what a start would read, or all of it.
func (d *doctor) log(dir string, full bool) {
	what, err := wal.Info(filepath.Join(dir, "wal"))
	if errors.Is(err, fs.ErrNotExist) {
		return // the directory is new, and has been said
	}
	if err == nil && full {
		var rep wal.Report
		if rep, err = verify(dir); err == nil {
			d.say("log", isOK, "", "%d frames, %s, every one as it was written", rep.Frames, sized(rep.Bytes))
		}
	}
	switch {
	case err != nil && damaged(err):
		do := "put back a copy of the data directory, or begin with a new one"
		if cmd := d.typed("wal repair", "--data-dir "+shellWord(dir), ", after a copy was made"); cmd != "" {
			do = cmd
		}
		d.say("log", isFail, do, "%v", err)
	case err != nil:
		d.say("log", isFail, "", "%v", err)
	case !full:
		size := int64(0)
		for _, g := range what.Generations {
			size += g.Bytes
		}
		torn := ""
		if what.TornBytes > 0 && !d.alive { // of one that is being written this is what its writer has begun
			torn = fmt.Sprintf("; its tail is torn (%d bytes), as by a crash, and the next run cuts it", what.TornBytes)
		}
		d.say("log", isOK, "", "%s in %d %s up to frame %d%s; the newest is sound, --full reads all", sized(size), len(what.Generations),
			plural(len(what.Generations), "generation", "generations"), what.Last, torn)
	}
}

// verify is wal.Verify, with the first damage as the error.
func verify(dir string) (wal.Report, error) {
	rep, err := wal.Verify(filepath.Join(dir, "wal"))
	if err == nil && !rep.OK() {
		return rep, rep.Damage[0]
	}
	return rep, err
}

// process asks the process, and looks at its jobs and topics.
func (d *doctor) process(ctx context.Context, at site) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	client, err := at.client()
	if err != nil {
		d.say("process", isFail, "mend the context in its file", "%v", err)
		return
	}
	began := time.Now()
	st, err := client.Status(ctx)
	var away *admin.UnreachableError
	_, holder := holderBy(at.String())
	switch {
	case err != nil && ctx.Err() != nil:
		d.say("process", isFail, "look at its messages; SIGQUIT prints what it does", "%s does not answer within %v", at, askMax)
		return
	case errors.As(err, &away) && holder > 0:
		d.say("process", isFail, "look at its messages: it may be starting, or listen at another place (--socket)", "process %d has the data directory, and none answers at %s", holder, at)
		return
	case errors.As(err, &away) && at.Context == "" && d.from["socket"].rank == byDefault:
		d.say("process", isWarn, d.typed("run", "FILE|DIR...", ofDemo(at.DataDir)), "none answers at %s", at)
		return
	case err != nil:
		d.say("process", isFail, d.typed("run", "FILE|DIR...", ", or name another with --socket or --context"), "%v", err)
		return
	}
	d.alive = true
	d.say("process", isOK, "", "%s answers in %v; it is up for %s", at, time.Since(began).Round(10*time.Microsecond), brief(time.Since(st.Started)))
	found := d.diagnose(st)
	d.found = append(d.found, found...)
	topics := slices.DeleteFunc(slices.Clone(st.Topics), func(t bus.TopicStat) bool { return t.Hidden })
	for _, what := range []struct {
		prefix, name string
		n            int
	}{{"job ", "jobs", len(st.Jobs)}, {"topic ", "topics", len(topics)}} {
		if !slices.ContainsFunc(found, func(f finding) bool { return strings.HasPrefix(f.Check, what.prefix) }) {
			d.say(what.name, isOK, "", "%d, and nothing is wrong with any", what.n)
		}
	}
}

// definitions checks files as check does.
func (d *doctor) definitions(args []string) {
	defs, warnings, err := d.load(d.cmd, args)
	var bad *badDefinitions
	again := d.typed("check", strings.Join(args, " "))
	switch {
	case errors.As(err, &bad):
		p := bad.Problems[0]
		d.say("definitions", isFail, again, "%d %s; the first: %s", len(bad.Problems), plural(len(bad.Problems), "problem", "problems"), spec.Problem{File: p.File, Line: p.Line, Column: p.Column, Msg: p.Msg})
	case err != nil:
		d.say("definitions", isFail, again, "%v", err)
	case len(warnings) > 0:
		d.say("definitions", isWarn, again, "%d %s, and %d %s", len(defs), plural(len(defs), "job", "jobs"), len(warnings), plural(len(warnings), "warning", "warnings"))
	default:
		d.say("definitions", isOK, "", "%d %s, and nothing is wrong with any", len(defs), plural(len(defs), "job", "jobs"))
	}
}
