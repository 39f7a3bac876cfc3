package killtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// finish lets every job come to its end, sees that only those that are there hold anything, removes the further ones, and
// stops the program: then nothing of theirs is left but what they wrote.
func (c *changeCampaign) finish() {
	tb, ctx := c.tb, context.Background()
	tb.Helper()
	c.start()
	p := c.last
	c.checkClaims("while all are there")
	names := []string{both}
	for _, cl := range c.all() {
		for name, f := range cl.now {
			names = append(names, name)
			if f.paused {
				if _, err := p.client.ResumeJob(ctx, name); err != nil {
					tb.Fatal(err)
				}
			}
		}
	}
	hearing := func(name string) bool {
		return slices.ContainsFunc(c.all(), func(cl *changer) bool { f, ok := cl.now[name]; return ok && f.kind == hears })
	}
	p.untilEnded(tb, func(j admin.Job) bool { return j.Name != anchor && !hearing(j.Name) })
	if err := p.remove(ctx, anchor); err != nil {
		tb.Fatal(err)
	}
	p.untilEnded(tb, func(admin.Job) bool { return true })
	for _, name := range names {
		var problem *admin.Problem
		if err := p.remove(ctx, name); err != nil && !(name == both && errors.As(err, &problem) && problem.Kind() == admin.KindNotFound) {
			tb.Fatalf("removing %s in the end: %v", name, err)
		}
	}
	c.checkClaims("when the further jobs are removed")
	p.stop(tb)
	c.last = nil
}

// checkClaims sees that subscriptions, outputs on their way, producers and snapshots belong to jobs that are there.
func (c *changeCampaign) checkClaims(when string) {
	tb, ctx := c.tb, context.Background()
	tb.Helper()
	js, err := c.last.client.Jobs(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	there, ids := map[string]bool{}, map[uint64]bool{}
	for _, j := range js {
		there[j.Name] = true
		if j.Status != nil {
			ids[uint64(j.Status.ID)] = true
		}
	}
	topics, err := c.last.client.Topics(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	for _, t := range topics {
		for _, s := range t.Subscriptions {
			job, _, _ := strings.Cut(strings.TrimPrefix(s.Name, "sender:"), "/")
			if !there[job] {
				tb.Errorf("%s: topic %s has a subscription %s of a job that is gone", when, t.Name, s.Name)
			}
		}
		for _, m := range t.Producers {
			if !ids[uint64(m.Producer)] {
				tb.Errorf("%s: topic %s waits for producer %d, which is gone", when, t.Name, m.Producer)
			}
		}
		if job, _, _ := strings.Cut(t.Name, "/"); t.Hidden && !there[job] {
			tb.Errorf("%s: output %s of a job that is gone is left", when, t.Name)
		}
	}
	files, err := os.ReadDir(filepath.Join(c.work.Dir, "snapshots"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatal(err)
	}
	for _, f := range files {
		id, _, _ := strings.Cut(f.Name(), "-")
		if n, err := strconv.ParseUint(id, 10, 32); err == nil && !ids[n] {
			tb.Errorf("%s: snapshot %s of a job that is gone is left", when, f.Name())
		}
	}
}

// checkFurther looks at what the further jobs wrote: those that were there to the end everything once, whatever happened to
// them; the others nothing twice, and nothing that is not so.
func (c *changeCampaign) checkFurther() {
	tb := c.tb
	tb.Helper()
	exceedances, days := c.exceedances()
	byTag, echo := c.echo()
	lasted := map[string]bool{}
	for _, cl := range c.all() {
		for _, f := range cl.now {
			lasted[f.tag()] = true
		}
	}
	for _, f := range c.begun {
		var got, all []string
		switch f.kind {
		case counts:
			got, all = c.lines(f, "v"), days
		case writes:
			got, all = byTag[f.tag()], exceedances
		case hears:
			got, all = c.lines(f, "w"), echo
		}
		slices.Sort(got)
		d := difference(got, all)
		if !lasted[f.tag()] || f.name == both {
			d = beyond(got, all)
		}
		if d != "" {
			tb.Errorf("further job %s: %s\n%s", f.tag(), d, f.text())
		}
	}
	if len(days) == 0 || len(echo) == 0 {
		tb.Error("there was nothing to count, or nothing to hear")
	}
}

// beyond says what got, sorted, has that is not in all, also sorted, as often.
func beyond(got, all []string) string {
	k := 0
	for _, line := range got {
		for k < len(all) && all[k] < line {
			k++
		}
		if k == len(all) || all[k] != line {
			return fmt.Sprintf("%d lines; %q is there too often", len(got), line)
		}
		k++
	}
	return ""
}

// lines returns what a job wrote to its file, without the field that says which version wrote it.
func (c *changeCampaign) lines(f *further, version string) (out []string) {
	if strings.HasPrefix(f.name, "bad-") {
		return nil // its file is another's, and it never was
	}
	if _, err := os.Stat(f.path); errors.Is(err, fs.ErrNotExist) {
		return nil // it never came to write
	}
	for _, line := range wholeLines(c.tb, f.path) {
		out = append(out, without(c.tb, line, version))
	}
	return out
}

// exceedances returns what the topic of that name should make the further jobs write: the records without the mean, and how
// many of a station there are on each day.
func (c *changeCampaign) exceedances() (records, days []string) {
	n := map[string]int{}
	c.read("exceedances", func(r runtime.TopicRecord) {
		var v struct{ Station, Pollutant, Start string }
		if err := json.Unmarshal(r.Value, &v); err != nil || r.Time == nil {
			c.tb.Fatalf("%+v: %v", r, err)
		}
		records = append(records, object(c.tb, map[string]any{"station": v.Station, "pollutant": v.Pollutant, "start": v.Start}))
		day := r.Time.UTC().Truncate(24 * time.Hour).Format("2006-01-02T15:04:05.000Z")
		n[object(c.tb, map[string]any{"station": v.Station, "start": day})]++
	})
	for day, n := range n {
		days = append(days, strings.TrimSuffix(strings.Replace(day, "{", fmt.Sprintf(`{"n":%d,`, n), 1), "\n"))
	}
	slices.Sort(records)
	slices.Sort(days)
	return records, days
}

// echo returns the records of that topic by who wrote them, without that and the version, and all of them without the version.
func (c *changeCampaign) echo() (byTag map[string][]string, all []string) {
	byTag = map[string][]string{}
	c.read("echo", func(r runtime.TopicRecord) {
		var by struct{ By string }
		if err := json.Unmarshal(r.Value, &by); err != nil {
			c.tb.Fatal(err)
		}
		all = append(all, without(c.tb, r.Value, "v"))
		byTag[by.By] = append(byTag[by.By], without(c.tb, r.Value, "v", "by"))
	})
	slices.Sort(all)
	return byTag, all
}

func (c *changeCampaign) read(topic string, f func(runtime.TopicRecord)) {
	o, err := runtime.OpenOffline(c.work.Dir)
	if err != nil {
		c.tb.Fatal(err)
	}
	first := bus.Offset(0)
	err = o.Tail(context.Background(), runtime.Tail{Topic: topic, Partition: -1, From: &first}, func(r runtime.TopicRecord) error {
		f(r)
		return nil
	})
	if err != nil {
		c.tb.Fatalf("topic %s: %v", topic, err)
	}
}

// without returns a JSON object without some fields, its names sorted.
func without(tb interface{ Fatalf(string, ...any) }, text []byte, fields ...string) string {
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	maps.DeleteFunc(v, func(name string, _ any) bool { return slices.Contains(fields, name) })
	return object(tb, v)
}

func object(tb interface{ Fatalf(string, ...any) }, v map[string]any) string {
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return string(b)
}
