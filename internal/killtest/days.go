package killtest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/internal/airdata"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// Days runs the jobs of examples/air/repair, of which one is wrong, repairs it, and lets it read days again, one or some weeks of
// them, while the program is killed in the middle. Behind each kill the days must stand in the job's file and topic once more,
// exactly as a run has them that was right from the start; or, where the kill came before the answer, not at all.
type Days struct {
	Command func(w *Work) *exec.Cmd // serves until SIGTERM
	Kills   int
	Leave   bool // the job is not repaired, which must be found
}

// daysJob is the job that is wrong.
const daysJob = "pm25"

// Run is the suite. What is wrong is the test's failure.
func (s Days) Run(tb testing.TB) {
	tb.Helper()
	rng := Seeded(tb)
	right := s.fromTheStart(tb)
	airdata.Compare(tb, daysJob, right.lines, airdata.Expect(tb, airdata.Sample(tb)).Windows[daysJob])
	c := s.begin(tb)
	wrong := c.left()
	if difference(wrong.lines, right.lines) == "" || difference(wrong.records, right.records) == "" {
		tb.Fatal("the job that is wrong is right")
	}
	day := c.undisturbed(right.someDays(rng, 42))
	began, whole, absent, inside := time.Now(), 0, 0, 0
	for kills := 0; kills < s.Kills || inside == 0 && kills < 10*s.Kills; kills++ {
		before := c.left()
		r := right.someDays(rng, []int{1, 14, 28, 42}[rng.IntN(4)])
		sure := c.kill(rng, r, day)
		at := len(c.left().records) - len(before.records)
		c.program = serve(tb, s.Command, c.work)
		c.program.untilEnded(tb, func(admin.Job) bool { return true })
		got := c.left().behind(before)
		if !sure && len(got.lines)+len(got.records) == 0 {
			absent++
			day = day * 4 / 3 // too early: the machine is slower now
			continue
		}
		c.compare(fmt.Sprintf("behind kill %d, which found %d records", kills+1, at), got, r)
		switch {
		case at > 0 && at < len(r.left.records):
			inside++
		case at > 0: // too late: the machine is faster now
			day = day * 3 / 4
			whole++
		default:
			whole++
		}
	}
	if inside == 0 {
		tb.Error("no kill found a part of a replay's records")
	}
	c.program.stop(tb)
	tb.Logf("replays of days, %v: %d were killed inside, %d before or behind, and %d were not there", time.Since(began).Round(time.Second), inside, whole, absent)
}

// daysLeft is what the job has left: its file's lines and its topic's values, in their order.
type daysLeft struct{ lines, records []string }

// behind is what came since, sorted.
func (l daysLeft) behind(before daysLeft) daysLeft {
	out := daysLeft{slices.Clone(l.lines[len(before.lines):]), slices.Clone(l.records[len(before.records):])}
	slices.Sort(out.lines)
	slices.Sort(out.records)
	return out
}

// daysRange is what is read again, and what must come of it.
type daysRange struct {
	from, to string
	days     int
	left     daysLeft
}

// someDays chooses so many days.
func (l daysLeft) someDays(rng *rand.Rand, n int) daysRange {
	first := time.Date(2013, 3, 1, 0, 0, 0, 0, time.UTC) // the sample's first whole day; it has 55
	from := first.AddDate(0, 0, rng.IntN(55-n))
	to := from.AddDate(0, 0, n)
	within := func(all []string) (some []string) {
		for _, v := range all {
			var w struct{ Start time.Time }
			if err := json.Unmarshal([]byte(v), &w); err != nil {
				panic(err) // the reference has compared them
			}
			if !w.Start.Before(from) && w.Start.Before(to) {
				some = append(some, v)
			}
		}
		slices.Sort(some)
		return some
	}
	return daysRange{from.Format(time.DateOnly), to.Format(time.DateOnly), n, daysLeft{within(l.lines), within(l.records)}}
}

// daysCampaign is a program with the job that was wrong.
type daysCampaign struct {
	tb      testing.TB
	work    *Work
	program *served
}

// start runs the jobs until they have ended.
func (s Days) start(tb testing.TB, jobs ...string) *daysCampaign {
	tb.Helper()
	dir := tb.TempDir()
	w := &Work{Jobs: filepath.Join(dir, "jobs"), Dir: filepath.Join(dir, "data"), Out: filepath.Join(dir, "out"),
		Data: airdata.Data{Name: "sample", Dir: filepath.Join(root(tb), "examples/air/data")}}
	for _, d := range []string{w.Jobs, w.Out} {
		if err := os.Mkdir(d, 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	for _, name := range jobs {
		if err := os.WriteFile(filepath.Join(w.Jobs, filepath.Base(name)), daysText(tb, name), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	c := &daysCampaign{tb, w, serve(tb, s.Command, w)}
	c.program.untilEnded(tb, func(admin.Job) bool { return true })
	return c
}

func daysText(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(root(tb), "examples/air/repair", name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// fromTheStart is what a job leaves that was right from the start, sorted.
func (s Days) fromTheStart(tb testing.TB) daysLeft {
	tb.Helper()
	c := s.start(tb, "jobs/readings.yaml", "repaired/pm25.yaml")
	c.program.stop(tb)
	return c.left().behind(daysLeft{})
}

// begin runs the wrong job, and repairs it.
func (s Days) begin(tb testing.TB) *daysCampaign {
	tb.Helper()
	c := s.start(tb, "jobs/readings.yaml", "jobs/pm25.yaml")
	name := "repaired/pm25.yaml"
	if s.Leave {
		name = "jobs/pm25.yaml"
	}
	files := []spec.File{{Name: "pm25.yaml", Content: daysText(tb, name)}}
	if _, err := c.program.client.Apply(context.Background(), files, admin.ApplyRequest{Adopt: true, Probation: "0s"}); err != nil {
		tb.Fatal(err)
	}
	if err := os.Remove(filepath.Join(c.work.Jobs, "pm25.yaml")); err != nil { // the job is the API's now
		tb.Fatal(err)
	}
	return c
}

// undisturbed lets the job read days again, checks them, and returns how long a day takes.
func (c *daysCampaign) undisturbed(r daysRange) time.Duration {
	c.tb.Helper()
	before, began := c.left(), time.Now()
	if _, err := c.replay(r); err != nil {
		c.tb.Fatal(err)
	}
	took := time.Since(began)
	c.program.untilEnded(c.tb, func(admin.Job) bool { return true })
	c.compare("undisturbed", c.left().behind(before), r)
	return took / time.Duration(r.days)
}

func (c *daysCampaign) compare(when string, got daysLeft, r daysRange) {
	c.tb.Helper()
	lines, records := difference(got.lines, r.left.lines), difference(got.records, r.left.records)
	if lines != "" || records != "" {
		c.tb.Fatalf("%s: days from %s to %s, read again: the file has %s; the topic has %s", when, r.from, r.to, cmp.Or(lines, "all"), cmp.Or(records, "all"))
	}
}

func (c *daysCampaign) replay(r daysRange) (admin.Operation, error) {
	return c.program.replay(context.Background(), daysJob, admin.ReplayRequest{Topic: "readings", From: r.from, To: r.to})
}

// kill lets the job read the days again, and kills the program within the time that this takes, or a little later. It reports
// whether the replay was answered.
func (c *daysCampaign) kill(rng *rand.Rand, r daysRange, day time.Duration) (sure bool) {
	c.tb.Helper()
	op, err := make(chan admin.Operation, 1), make(chan error, 1)
	go func() {
		o, e := c.replay(r)
		op <- o
		err <- e
	}()
	time.Sleep(time.Duration(float64(day) * float64(r.days) * (0.1 + 1.1*rng.Float64())))
	c.program.kill(c.tb)
	answer, e := <-op, <-err
	var problem *admin.Problem
	if errors.As(e, &problem) || errors.Is(e, errWrong) {
		c.tb.Fatalf("the replay of %s to %s: %v\n%s", r.from, r.to, e, tail(c.program.out.Bytes()))
	}
	return e == nil && answer.Replay != nil
}

// left reads what the job has left, also where the program was killed, which may have torn the file's last line, to be cut off.
func (c *daysCampaign) left() (l daysLeft) {
	c.tb.Helper()
	b, err := os.ReadFile(c.work.OutputPath(daysJob))
	if err != nil {
		c.tb.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	l.lines = lines[:len(lines)-1]
	o, err := runtime.OpenOffline(c.work.Dir)
	if err != nil {
		c.tb.Fatal(err)
	}
	first := bus.Offset(0)
	err = o.Tail(context.Background(), runtime.Tail{Topic: "exceedances", Partition: -1, From: &first}, func(r runtime.TopicRecord) error {
		if int(r.Offset) != len(l.records) {
			return fmt.Errorf("offset %s where %d is due", r.Offset, len(l.records))
		}
		l.records = append(l.records, string(r.Value))
		return nil
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	return l
}
