package jobs_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
)

// TestEntryTooLargeIsTheRecords: a record that makes an entry of state too large is refused like one whose step returned an
// error: what the step had changed for it is undone, what it emitted is not sent on, and the next record goes on.
func TestEntryTooLargeIsTheRecords(t *testing.T) {
	store := jobstest.NewStore()
	store.EntryBytes = 100
	s := jobstest.StepOf[string, string, jobs.None](t, store, func(in *jobs.Stream[string]) {
		jobs.Process(in, func(s *jobs.Step[string, string, string, jobs.None]) {
			seen, last := jobs.ListOf[string](s, "seen"), jobs.ValueOf[string](s, "last")
			s.OnRecord = func(v string) error {
				s.Emit("seen " + v)
				s.SetTimer(jobs.Time(len(v)))
				seen.Append("x")
				last.Set(v)
				return nil
			}
			s.OnTimer = func(at jobs.Time) error {
				s.Emit(fmt.Sprint("timer ", int64(at)))
				if at == 7 {
					last.Set(strings.Repeat("y", 200))
				}
				return nil
			}
		})
	})
	send := func(v string) { s.Process(jobs.Rec[string]{Value: v, Time: 1, Key: stringKey("k")}) }
	send("one")
	before := s.Store.Entries()
	send(strings.Repeat("x", 100))
	if n := s.Store.Entries(); n != before {
		t.Errorf("%d entries, %d before the record that was refused", n, before)
	}
	send("three")
	var fault jobs.RecordFault
	if len(s.Rejected) != 1 || !errors.As(s.Rejected[0].Err, &fault) || !strings.Contains(string(s.Rejected[0].Message.Value), "xxxx") {
		t.Errorf("refused: %+v", s.Rejected)
	}
	s.Watermark(5)
	var got []string
	for _, r := range s.Main {
		got = append(got, r.Value)
	}
	if want := "[seen one seen three timer 3 timer 5]"; fmt.Sprint(got) != want || s.Err != nil {
		t.Errorf("emitted %v %v, want %s", got, s.Err, want)
	}

	// A timer is no record: there the attempt fails, with an error and not a panic.
	send("seventh")
	s.Watermark(7)
	if !errors.As(s.Err, &fault) || !strings.Contains(s.Err.Error(), "at watermark") {
		t.Errorf("a timer whose entry is too large: %v", s.Err)
	}
}

// TestOtherPanicsStayPanics: what is no record's fault is not taken for one.
func TestOtherPanicsStayPanics(t *testing.T) {
	s := jobstest.StepOf[string, jobs.None, jobs.None](t, jobstest.NewStore(), func(in *jobs.Stream[string]) {
		jobs.Process(in, func(s *jobs.Step[string, string, jobs.None, jobs.None]) {
			jobs.ValueOf[string](s, "last")
			s.OnRecord = func(v string) error { panic("at " + v) }
		})
	})
	defer func() {
		if p := recover(); p != "at home" {
			t.Errorf("recovered %v", p)
		}
		if len(s.Rejected) > 0 {
			t.Errorf("refused: %+v", s.Rejected)
		}
	}()
	s.Process(jobs.Rec[string]{Value: "home", Key: stringKey("k")})
}

func stringKey(k string) jobs.Key {
	b, err := jobs.NewKeyCodec[string]().Append(nil, k)
	if err != nil {
		panic(err)
	}
	return jobs.MakeKey(b)
}
