package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/examples/air"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
)

// devPace is how many readings of the sample dev feeds in a second: a day of it is 1,440.
const devPace = 3000

func (a *app) dev() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "dev",
		Short: "Show the example at work: six jobs on real data, with nothing to install",
		Long: `Dev runs the six jobs of examples/air on a Kafka broker inside this process and feeds them eight weeks of air-quality
readings: five jobs watch a pollutant each, the sixth reads what they tell it over the bus and gives one alert for a station's
day with three or more pollutants over their limits.

Everything is kept in a temporary directory that goes when dev ends, or in --data-dir, and then the next dev goes on.`,
		Example: `  sidestream dev
  sidestream dev --data-dir air-demo --rate 10000   # is kept, and faster`,
		Args: noArgs,
	}, a.doDev)
	// No setting: what is set there is the directory of the user's own jobs.
	c.Flags().String("data-dir", "", "keep everything here; empty takes a temporary directory and removes it at the end")
	c.Flags().Duration("duration", 0, "end by itself so long after the start; 0 never")
	c.Flags().Bool("once", false, "end by itself when the whole sample has been fed and read")
	c.Flags().Int("rate", devPace, "readings fed in a second")
	take(c, "listen", "socket", "drain-timeout", "kafka-port", "allow-env", "log-format")
	c.Flags().String("log-level", "warn", "debug, info, warn or error")
	isSetting(c, "log-level")
	return c
}

// devJobs returns the example's jobs, on the embedded broker whatever the environment says.
func devJobs() ([]*jobs.Job, error) {
	names, err := fs.Glob(air.Files, "jobs/*.yaml")
	if err != nil {
		return nil, err
	}
	cfg := spec.Config{Connectors: all.Registry(), Env: func(string) (string, bool) { return "", false }}
	var defs []*jobs.Job
	for _, name := range names {
		if spec.IsCaseFile(name) {
			continue
		}
		b, err := air.Files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		js, problems := spec.LoadBytes(cfg, path.Join("examples/air", name), b)
		if len(problems) > 0 {
			return nil, &badDefinitions{Problems: problems}
		}
		defs = append(defs, js...)
	}
	return defs, runtime.CheckSet(defs)
}

func (a *app) doDev(cmd *cobra.Command, _ []string) error {
	rate, _ := cmd.Flags().GetInt("rate")
	if rate < 1 {
		return withCode(exitUsage, fmt.Errorf("--rate is %d; it is 1 or more", rate))
	}
	defs, err := devJobs()
	if err != nil {
		return withCode(exitBug, err)
	}
	p, cfg, err := a.process(cmd)
	if err != nil {
		return err
	}
	kept := p.dataDir != ""
	if !kept {
		if p.dataDir, err = os.MkdirTemp("", "sidestream-dev-"); err != nil {
			return withCode(exitDisk, err)
		}
	}
	ctx, cancel := a.untilSignal(syscall.SIGHUP)
	defer cancel()
	cfg.DataDir = p.dataDir
	if err := p.start(cfg, defs); err != nil {
		return err
	}
	d := &devRun{process: p, live: newLive(a.stdout), kept: kept}
	d.once, _ = cmd.Flags().GetBool("once")
	d.duration, _ = cmd.Flags().GetDuration("duration")
	err = d.run(ctx, rate)
	cancel()
	err = errors.Join(err, p.wait(ctx, false))
	d.farewell()
	if !kept && err == nil {
		err = os.RemoveAll(p.dataDir)
	}
	return err
}

// devRun is dev at work.
type devRun struct {
	*process
	live *live
	feed *feeder
	kept bool

	once     bool
	duration time.Duration // 0 has no end

	mu     sync.Mutex
	alerts int
	last   string // alert: the one of the latest day, then station, so that it is the same after a restart
	lastAt string // what it is chosen by
}

// run feeds and draws until ctx ends or, with once, the sample has been read.
func (d *devRun) run(ctx context.Context, rate int) error {
	broker, err := d.broker.Kafka(ctx)
	if err != nil {
		return err
	}
	if d.feed, err = newFeeder(ctx, broker, rate); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	d.greet(broker)
	var g sync.WaitGroup
	defer g.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if d.duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, d.duration)
		defer cancel()
	}
	fed := make(chan error, 1)
	g.Go(func() { fed <- d.feed.run(ctx); d.feed.client.Close() })
	g.Go(func() { d.watchAlerts(ctx, broker) })
	g.Go(func() {
		if d.rt.Wait(ctx, false) != nil { // the log has failed: whoever stops the runtime is told why
			cancel()
		}
	})
	every := time.Second
	if d.live.terminal {
		every = 250 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	allFed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-fed:
			if err != nil || ctx.Err() != nil {
				return err
			}
			allFed = true
			d.live.say("The whole sample has been fed. The jobs wait for more; the last day's windows stay open, for a stream has no end.")
			if !d.once {
				d.live.say("Ctrl-C ends.")
			}
		case <-tick.C:
			st := d.rt.Status()
			d.live.draw(st, d.notes(st))
			if allFed && d.once && quiet(st) {
				return nil
			}
		}
	}
}

// quiet reports whether the jobs have read all there is: nothing is left to be read on the bus or to be sent, and nothing has
// been committed for a while.
func quiet(st runtime.Status) bool {
	for _, j := range st.Jobs {
		if j.Lag > 0 || time.Since(j.LastCommit) < time.Second {
			return false
		}
		for _, o := range j.Outputs {
			if o.Unsent > 0 {
				return false
			}
		}
	}
	return true
}

func (d *devRun) greet(broker string) {
	d.live.say("Six jobs run in this process. Five read a Kafka topic each (an embedded broker at %s), keep a day's windows for each", broker)
	d.live.say("of twelve stations in Beijing, and tell the sixth over the bus what is over its limit. Readings: see examples/air/data.")
	d.live.say("Data directory: %s%s. Ctrl-C ends.", d.dataDir, map[bool]string{true: "", false: " (temporary)"}[d.kept])
	d.live.say("Meanwhile, in another terminal:")
	d.live.say("  export SIDESTREAM_DATA_DIR=%s        # so that commands find this process", d.dataDir)
	d.live.say("  %s status                            # how it stands; top shows it live", d.app.called())
	d.live.say("  %s bus tail exceedances --follow     # what the five tell the sixth", d.app.called())
	d.live.say("  %s job apply FILE                    # add a job of your own: README has one", d.app.called())
	if n := d.feed.fed.Load(); n > 0 {
		d.live.say("%d readings were fed before: the jobs go on where they stood.", n)
	}
	d.live.say("")
}

func (d *devRun) notes(st runtime.Status) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	notes := []string{fmt.Sprintf("fed %d readings, up to %s; %d alerts", d.feed.fed.Load(), time.UnixMilli(d.feed.reached.Load()).UTC().Format("2006-01-02 15:04"), d.alerts)}
	if d.last != "" {
		notes = append(notes, "newest alert: "+d.last)
	}
	for _, j := range st.Jobs {
		if j.Counters.Rejected > 0 {
			notes = append(notes, fmt.Sprintf("dead letters, such as readings that are \"NA\": %s bus tail dead-letters --data-dir %s", d.app.called(), d.dataDir))
			break
		}
	}
	return notes
}

// watchAlerts reads what the sixth job writes, as any consumer would.
func (d *devRun) watchAlerts(ctx context.Context, broker string) {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics("air-alerts"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.MetadataMinAge(250*time.Millisecond), kgo.UnknownTopicRetries(-1))
	if err != nil {
		d.logger.Warn("alerts cannot be shown", "err", err)
		return
	}
	defer client.Close()
	for ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			var v struct {
				Station    string `json:"station"`
				Start      string `json:"start"`
				Pollutants int    `json:"pollutants"`
			}
			if err := json.Unmarshal(r.Value, &v); err != nil {
				return
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.alerts++
			at := v.Start + " " + v.Station
			if at < d.lastAt {
				return
			}
			d.lastAt = at
			d.last = fmt.Sprintf("%s, %.10s: %d pollutants over their limits", v.Station, v.Start, v.Pollutants)
		})
	}
}

// farewell says what to try next.
func (d *devRun) farewell() {
	d.live.drawn = 0 // the last picture stays
	d.live.say("")
	d.live.say("What to try next:")
	called := d.app.called()
	if !d.kept {
		d.live.say("  %s dev --data-dir air-demo", called)
		d.live.say("      keeps everything there: kill -9 it at any moment and start it again, it goes on as if nothing had happened")
	} else {
		d.live.say("  %s dev --data-dir %s", called, filepath.Clean(d.dataDir))
		d.live.say("      goes on where this ended")
		d.live.say("  %s bus tail exceedances --data-dir %s", called, filepath.Clean(d.dataDir))
		d.live.say("      what the five told the sixth")
	}
	if _, err := os.Stat("examples/air/jobs"); err == nil {
		d.live.say("  %s check examples/air/jobs", called)
		d.live.say("      the six jobs are YAML: change one, and see what the loader says")
	} else {
		d.live.say("  examples/air/jobs, in Sidestream's repository")
		d.live.say("      the six jobs are YAML: change one, and see what '%s check' says", called)
	}
	d.live.say("  README.md, in the repository")
	d.live.say("      how a job is written, in YAML and in Go, and what is promised")
}

// called is how the program was started, to be typed again.
func (a *app) called() string {
	if exe, err := os.Executable(); err == nil && strings.Contains(exe, "go-build") {
		return "go run ./cmd/" + a.name
	}
	return a.name
}
