package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/kafka"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
	"github.com/sidestream-dev/sidestream/wal"
)

func (a *app) run() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "run [FILE|DIR...]",
		Short: "Run jobs until stopped, or until they are done",
		Long: `Run runs the jobs that files define, and those that 'job apply' has given to the data directory. What the directory knows of
them goes on where it stood; a job that was from a file and that no file defines any more stays stopped, with its state, and is
named.

SIGTERM or SIGINT stops in order: every job commits once more, what is committed is sent, within --drain-timeout. A second
one ends the process at once. Neither loses anything: the next run goes on.

SIGHUP reads the files again: what has changed is taken up as 'job apply' would, a job that no file defines any more is stopped,
with its state, until a file has it again. --watch does so by itself, and removes a job that no file has any more: what it kept
stays as a savepoint. A job under another name is another job. Where the files have mistakes, they are told, and what runs goes
on. Of a directory without any file nothing is removed: it may be away.`,
		Example: `  sidestream run jobs/
  sidestream run                         # what 'job apply' gives it
  sidestream run jobs/ --data-dir data --listen 127.0.0.1:9600   # metrics there
  sidestream run bounded/ --until-done   # ends when bounded sources have been read, and all is committed and sent`,
	}, a.doRun)
	c.Flags().Bool("until-done", false, "end with 0 when every job has ended and all is committed and sent; with 1 when what remains cannot move")
	c.Flags().Bool("watch", false, "follow the files: what changes is taken up, a job that no file has any more is removed, and leaves a savepoint")
	c.Flags().Bool("adopt", false, "take jobs over that are the API's and that a file defines too")
	c.Flags().Bool("allow-state-loss", false, "drop state that definitions which have changed cannot keep")
	c.Flags().Bool("drop-unsent", false, "drop what outputs have yet to send that definitions which have changed give up, or that jobs gave up earlier")
	take(c, "data-dir", "listen", "token-file", "tls-cert", "tls-key", "tls-client-ca", "socket", "drain-timeout", "kafka-port", "allow-env", "log-level", "log-format")
	take(c, tuning...)
	c.ValidArgsFunction = definitionFiles
	return c
}

func (a *app) doRun(cmd *cobra.Command, args []string) error {
	untilDone, _ := cmd.Flags().GetBool("until-done")
	watch, _ := cmd.Flags().GetBool("watch")
	if watch && (untilDone || len(args) == 0) {
		return withCode(exitUsage, errors.New("--watch follows the files or directories that are named, and does not go with --until-done"))
	}
	r := &reloader{paths: args, watch: watch, told: map[string]string{}, load: func() ([]*jobs.Job, error) {
		js, _, err := a.load(cmd, args)
		return js, err
	}}
	r.begin()
	defer signal.Stop(r.hup)
	var defs []*jobs.Job
	var warnings []spec.Problem
	var err error
	if len(args) > 0 || len(a.defs) > 0 || untilDone {
		if defs, warnings, err = a.load(cmd, args); err != nil {
			return a.problems(cmd, err)
		}
	}
	if untilDone {
		if err := allBounded(defs); err != nil {
			return withCode(exitConfig, err)
		}
	}
	p, cfg, err := a.process(cmd)
	if err != nil {
		return err
	}
	cfg.Adopt, _ = cmd.Flags().GetBool("adopt")
	cfg.AllowStateLoss, _ = cmd.Flags().GetBool("allow-state-loss")
	cfg.DropUnsent, _ = cmd.Flags().GetBool("drop-unsent")
	cfg.RestartFailed = untilDone // it is begun by hand, and what has failed before would only fail it again
	ctx, cancel := a.untilSignal()
	defer cancel()
	if err := p.start(cfg, defs); err != nil {
		if exitCode(err) == exitConfig {
			a.warn(warnings) // they may say why
		}
		return err
	}
	a.warn(stillOdd(warnings, p.rt.Status().Topics))
	r.p, r.options = p, runtime.ApplyOptions{Adopt: cfg.Adopt, AllowStateLoss: cfg.AllowStateLoss, DropUnsent: cfg.DropUnsent}
	for _, d := range defs {
		r.names = append(r.names, d.Name)
	}
	var reloads sync.WaitGroup
	over, end := context.WithCancel(ctx)
	reloads.Go(func() { r.run(over) })
	reloads.Go(func() { p.sayCaughtUp(over) })
	p.before = func() { end(); reloads.Wait() }
	return p.wait(ctx, untilDone)
}

// process reads the settings of a command that runs jobs.
func (a *app) process(cmd *cobra.Command) (*process, runtime.Config, error) {
	var cfg runtime.Config
	line := a.progress("reading the log")
	logger, err := a.logger(cmd, line)
	if err != nil {
		return nil, cfg, err
	}
	p := &process{app: a, logger: logger, line: line, language: language(cmd), dataDir: text(cmd, "data-dir"), socket: text(cmd, "socket")}
	if p.kafkaPort, err = strconv.Atoi(text(cmd, "kafka-port")); err != nil || p.kafkaPort < 0 || p.kafkaPort > 65535 {
		return nil, cfg, a.bad(cmd, "kafka-port", "a number from 0 to 65535")
	}
	cfg = runtime.Config{DataDir: p.dataDir, Logger: logger, Load: p.loadOne, OnRead: func(read, of int64) { line.at(read, of, fmt.Sprintf("of %d frames", of)) }}
	cfg.StopTimeout, err = a.duration(cmd, "drain-timeout")
	cfg.StopTimeout = max(cfg.StopTimeout, time.Nanosecond) // 0 would be its default
	if err == nil && cmd.Flags().Lookup("commit-interval") != nil {
		err = a.tune(cmd, &cfg)
	}
	if err == nil && p.socket != "" { // before there is a data directory
		if err := admin.CheckSocket(p.socket); err != nil {
			return nil, cfg, withCode(exitConfig, err)
		}
	}
	if err == nil {
		p.listener, err = listen(cmd)
	}
	return p, cfg, err
}

// listen takes the address that --listen names; nil where it names none.
func listen(cmd *cobra.Command) (*admin.Listener, error) {
	addr := text(cmd, "listen")
	if addr == "" {
		for _, name := range []string{"token-file", "tls-cert", "tls-key", "tls-client-ca"} {
			if cmd.Flags().Changed(name) {
				return nil, withCode(exitUsage, fmt.Errorf("--%s says who may ask over TCP, and no --listen says where", name))
			}
		}
		return nil, nil
	}
	tcp := admin.TCP{Addr: addr, TokenFile: text(cmd, "token-file"), CertFile: text(cmd, "tls-cert"), KeyFile: text(cmd, "tls-key"), ClientCAFile: text(cmd, "tls-client-ca")}
	l, err := tcp.Listen()
	if err != nil {
		return nil, withCode(exitConfig, err)
	}
	return l, nil
}

// loadOne makes a job again from what the log has of it.
func (p *process) loadOne(definition []byte, o runtime.Origin) (*jobs.Job, error) {
	js, problems := spec.LoadBytes(p.language, "definition", definition)
	switch {
	case len(problems) > 0:
		return nil, &badDefinitions{Problems: problems}
	case len(js) != 1:
		return nil, fmt.Errorf("a definition of origin %s has %d jobs", o, len(js))
	}
	return js[0], nil
}

// allBounded returns an error that names the jobs which would never end.
func allBounded(defs []*jobs.Job) error {
	var names []string
	for _, d := range defs {
		for _, n := range d.Nodes {
			if n.Source != nil && n.Source.Source != nil && !n.Source.Source.Bounded() {
				names = append(names, fmt.Sprintf("the %s source of job %s", n.Source.Source.Kind(), d.Name))
			}
		}
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("--until-done: %s would never end; bound it (a kafka source by \"end: latest\", a generator by \"count\"), or run without --until-done",
		strings.Join(names, ", "))
}

// signalTwice is how soon after the first a second signal is taken for the same.
const signalTwice = 300 * time.Millisecond

// untilSignal returns a context that the first SIGINT or SIGTERM ends, and where more are named one of these. The second ends the
// process.
func (a *app) untilSignal(more ...os.Signal) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, append(more, os.Interrupt, syscall.SIGTERM)...)
	go func() {
		select {
		case <-signals:
		case <-ctx.Done():
			return
		}
		told := time.Now() // before anybody can see that it stops
		a.say("stopping: last commits, then what is yet to be sent; once more ends at once")
		cancel()
		for time.Since(told) < signalTwice {
			<-signals // of whoever asked twice with one breath, such as a terminal and a parent that passes it on
		}
		a.say("ended at once; the next run goes on from what is committed")
		os.Exit(exitFailed)
	}()
	return ctx, cancel
}

// process is a runtime and what runs beside it.
type process struct {
	app       *app
	logger    *slog.Logger
	line      *progress   // below what logger writes, where that is a terminal
	language  spec.Config // what definitions are loaded with
	dataDir   string
	socket    string          // "" is the one in the data directory
	listener  *admin.Listener // of --listen, from before the data directory is touched; nil listens to nothing
	kafkaPort int

	before func() // ends what changes the jobs, before they stop
	rt     *runtime.Runtime
	broker *kafka.Embedded
	told   sync.Once // the broker's address
	admin  *admin.Server
}

// start opens the data directory and starts the jobs. Where it fails, nothing of it is left.
func (p *process) start(cfg runtime.Config, defs []*jobs.Job) error {
	var err error
	if p.admin, err = admin.New(admin.Config{Version: buildOf().Version, Spec: p.language, Logger: p.logger}); err != nil {
		return err
	}
	if p.listener != nil { // from the beginning: a log can be long
		p.admin.Serve(p.listener)
		p.logger.Info("serving metrics and status", "url", p.listener.URL()+"/metrics")
	}
	p.broker = &kafka.Embedded{Dir: filepath.Join(p.dataDir, "kafka"), Port: p.kafkaPort, Logger: p.logger}
	cfg.Services = p
	if p.rt, err = runtime.Open(cfg); err != nil {
		return errors.Join(p.app.opened(err, p.dataDir), p.admin.Close())
	}
	p.line.end()
	p.admin.Attach(p.rt)
	if r := p.rt.Recovered(); r.CutBytes > 0 || r.Generation > 0 {
		p.logger.Warn("the log's tail was torn, as by a crash, and is cut; nothing that was committed is lost by it", "found", r.String())
	}
	if err := p.listenUnix(); err != nil {
		return errors.Join(err, p.stop())
	}
	if err := p.rt.Start(defs); err != nil {
		if ofDisk(err) {
			return errors.Join(err, p.admin.Close()) // the log's last word, said once: nothing more can be committed
		}
		return errors.Join(unstarted(err), p.stop())
	}
	p.admin.Started()
	if missing := p.rt.Status().Missing; len(missing) > 0 {
		p.logger.Warn("jobs in the data directory that no file defines stay stopped, with their state", "jobs", strings.Join(missing, ", "))
	}
	for _, w := range waitsForNobody(defs, p.rt.Status().Topics) {
		p.logger.Warn("a topic is empty and no job here writes it: who reads it waits", "topic", w.topic, "job", w.job)
	}
	p.logger.Info("running", "jobs", len(defs), "data_dir", p.dataDir, "pid", os.Getpid())
	return nil
}

// stillOdd leaves out what jobs of the API make right, which the files do not know.
func stillOdd(warnings []spec.Problem, topics []bus.TopicStat) []spec.Problem {
	return slices.DeleteFunc(slices.Clone(warnings), func(w spec.Problem) bool {
		return slices.ContainsFunc(topics, func(t bus.TopicStat) bool {
			return w.Topic == t.Name && len(t.Subscriptions) > 0 && (len(t.Producers) > 0 || isWritten(t))
		})
	})
}

func isWritten(t bus.TopicStat) bool {
	return slices.ContainsFunc(t.Partitions, func(p bus.PartitionStat) bool { return p.Next > 0 })
}

// waits is a job that reads a topic.
type waits struct{ job, topic string }

// waitsForNobody returns who reads topics that are empty and that none of defs writes.
func waitsForNobody(defs []*jobs.Job, topics []bus.TopicStat) (ws []waits) {
	written := map[string]bool{}
	for _, t := range topics {
		written[t.Name] = isWritten(t) || len(t.Producers) > 0
	}
	for _, d := range defs {
		for _, n := range d.Outputs() {
			written[n.Output.Topic] = true
		}
	}
	for _, d := range defs {
		for _, n := range d.Nodes {
			if n.Source != nil && n.Source.Source == nil && !written[n.Source.Topic] {
				ws = append(ws, waits{d.Name, n.Source.Topic})
			}
		}
	}
	return ws
}

// opened adds to an error of opening a data directory what can be done.
func (a *app) opened(err error, dir string) error {
	var locked *wal.LockedError
	var path *fs.PathError
	switch {
	case errors.As(err, &locked):
		return inUse(locked, dir, "stop that process first, or give this one another --data-dir")
	case damaged(err):
		return a.mend(err, dir)
	case forbidden(err) && !(errors.As(err, &path) && path.Op == "mkdir"):
		return fmt.Errorf("%w; who runs this must be able to write there: change its owner or mode, or name another folder with --data-dir", err)
	case errors.As(err, &path) && path.Op == "mkdir":
		return fmt.Errorf("%w; name a folder that can be written with --data-dir", err)
	}
	return err
}

// unstarted gives an error of starting jobs its exit code: what is defined is at fault, unless the disk is.
func unstarted(err error) error {
	if errors.Is(err, wal.ErrNoRoom) {
		return withCode(exitDisk, fmt.Errorf("%w; make room on the disk of the data directory, or name another with --data-dir", err))
	}
	var loss *runtime.StateLossError
	var other *runtime.OriginError
	var topic *runtime.TopicError
	var unsent *runtime.UnsentError
	switch {
	case errors.As(err, &loss):
		err = fmt.Errorf("%w; --allow-state-loss drops it", err)
	case errors.As(err, &unsent):
		err = fmt.Errorf("%w; --drop-unsent drops them", err)
	case errors.As(err, &topic):
		err = fmt.Errorf("%w; %s", err, topic.Hint())
	case errors.As(err, &other):
		err = fmt.Errorf("%w; leave its file out, or take it over with --adopt", err)
	}
	return withCode(exitConfig, err)
}

// inUse says which data directory another process has, and what to do.
func inUse(err *wal.LockedError, dir, do string) error {
	who := "another process"
	if err.PID > 0 {
		who = fmt.Sprintf("process %d", err.PID)
	}
	return &mendable{err, fmt.Sprintf("the data directory %s is in use by %s; %s", dir, who, do)}
}

// mend adds to an error of a damaged log what can be done, as a command to type.
func (a *app) mend(err error, dir string) error {
	text := err.Error()
	if !strings.Contains(text, "`wal repair") {
		text += "; `wal repair` says what can be kept"
	}
	return &mendable{err, strings.ReplaceAll(text, "`wal repair", "`"+a.called()+" wal repair --data-dir "+shellWord(dir))}
}

// mendable is an error in other words.
type mendable struct {
	error
	text string
}

func (e *mendable) Unwrap() error { return e.error }
func (e *mendable) Error() string { return e.text }

// Kafka returns the embedded broker's address, and tells people who want to write to it. It makes a process jobs.Services.
func (p *process) Kafka(ctx context.Context) (string, error) {
	addr, err := p.broker.Kafka(ctx)
	if err == nil {
		p.told.Do(func() { p.logger.Info("the embedded Kafka broker listens", "address", addr) })
	}
	return addr, err
}

// listenUnix opens the socket of the admin API. One that was asked for must be there.
func (p *process) listenUnix() error {
	asked := p.socket != ""
	if !asked {
		p.socket = socketIn(p.dataDir)
	}
	if err := p.admin.ListenUnix(p.socket); err != nil {
		if asked {
			return withCode(exitConfig, err)
		}
		p.logger.Warn("there is no admin socket; name a place for it with --socket", "err", err)
	}
	return nil
}

// stop ends everything that start began, in reverse.
func (p *process) stop() error {
	if p.before != nil {
		p.before()
	}
	return errors.Join(p.admin.Close(), p.rt.Stop(), p.broker.Close())
}

// wait returns when ctx has ended or, if untilDone, all is done, and everything has stopped.
func (p *process) wait(ctx context.Context, untilDone bool) error {
	err := p.rt.Wait(ctx, untilDone)
	if err != nil && ofDisk(err) {
		return err // the log's last word: nothing more can be committed
	}
	early := untilDone && err == nil && ctx.Err() != nil
	switch err = errors.Join(err, p.stop()); {
	case err != nil:
		return err
	case early:
		return withCode(exitAgain, errors.New("stopped before all was done; run it again to go on"))
	case untilDone:
		p.logger.Info("done: every job has ended, all is committed and sent")
	default:
		p.logger.Info("stopped; the next run goes on from here")
	}
	return nil
}
