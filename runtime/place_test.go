package runtime_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestParsePlace: what people write is read, and what is written of it is read as the same.
func TestParsePlace(t *testing.T) {
	now := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	for in, want := range map[string]string{"earliest": "earliest", "beginning": "earliest", "latest": "latest", "end": "latest", "offset:7": "offset:7",
		"-2h": "2026-01-31T06:00:00Z", "2026-01-31T08:00:00+01:00": "2026-01-31T07:00:00Z", "newest-2h": "newest-2h0m0s", "newest-0s": "newest-0s", "newest-10d": "newest-240h0m0s", "-1d12h": "2026-01-29T20:00:00Z", "2013-03-10": "2013-03-10T00:00:00Z", "savepoint:x": "savepoint:x"} {
		p, err := runtime.ParsePlace(in, now, true)
		if err != nil || p.String() != want {
			t.Errorf("%s: %s, %v; want %s", in, p, err, want)
		}
		if again, err := runtime.ParsePlace(want, now, true); err != nil || again.String() != want {
			t.Errorf("%s again: %s, %v", want, again, err)
		}
	}
	for _, in := range []string{"", "newest", "newest-", "newest--1h", "newest-1", "newest-1y", "newest+1h", "newest-9999999999h", "newest-d", "newest-1.5d", "newest-1d-2h", "newest-99999d", "newest-65535d2500000h", "-1d1", "2013-13-10", "-", "--1h", "offset:-1", "offset:", "savepoint:", "noon"} {
		if p, err := runtime.ParsePlace(in, now, true); err == nil {
			t.Errorf("%q is read as %s", in, p)
		}
	}
}

// TestNewest: a time before the newest record is of the record that each partition was given last, whatever the clock says; of a
// topic without one it is refused.
func TestNewest(t *testing.T) {
	noLeaks(t)
	topic, in := jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{Name: "numbers", Partitions: 2}}, newTap(1000, 1000)
	j := jobs.New("writer")
	begin := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	timed := numbers(j, in, jobs.EventTime(func(n int64) time.Time { return begin.Add(time.Duration(n) * time.Second) }, time.Second))
	jobs.ToTopic(jobs.KeyBy(timed, func(n int64) int64 { return n }), topic)
	none := jobs.New("none")
	jobs.ToTopic(jobs.Filter(jobs.FromTopic(none, topic), func(int64) bool { return false }), jobs.BusTopic[int64]{Name: "none"})
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, j, none, evens("evens", topic, even))
	defer stop(t, rt)
	wait(t, rt)
	ago := 100 * time.Second
	read := 0
	err := rt.Tail(t.Context(), runtime.Tail{Topic: "numbers", Partition: -1, Begin: &runtime.Place{BeforeNewest: &ago}}, func(r runtime.TopicRecord) error {
		if read++; r.Time.Before(begin.Add(899 * time.Second)) {
			t.Errorf("a record of %v", r.Time)
		}
		return nil
	})
	if err != nil || read != 101 {
		t.Errorf("%d records of the newest hundred seconds, %v", read, err)
	}
	res, err := rt.Replay(t.Context(), "evens", "numbers", runtime.ReplayOptions{From: runtime.Place{BeforeNewest: &ago}, DryRun: true})
	if err != nil || res.Records != 101 {
		t.Errorf("%+v, %v", res, err)
	}
	all := 10 * 365 * 24 * time.Hour
	if res, err := rt.Replay(t.Context(), "evens", "numbers", runtime.ReplayOptions{From: runtime.Place{BeforeNewest: &all}, To: &runtime.Place{BeforeNewest: &ago}, DryRun: true}); err != nil || res.Records != 899 {
		t.Errorf("%+v, %v", res, err)
	}
	err = rt.Tail(t.Context(), runtime.Tail{Topic: "none", Begin: &runtime.Place{BeforeNewest: &ago}}, func(runtime.TopicRecord) error { return errors.New("a record") })
	if err == nil || err.Error() == "a record" {
		t.Errorf("of a topic without records: %v", err)
	}
}
