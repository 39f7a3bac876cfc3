package jobs_test

// The three jobs that the Go face was tried with; docs/adr/0003-go-api.md counts their lines against their Flink twins.

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
	"github.com/sidestream-dev/sidestream/jobs/operator"
)

// Job 1: per device and minute, how many readings and how hot; readings over 90 at once to a topic for other jobs; what
// comes too late to another.

type Reading struct {
	Device string    `json:"device"`
	Level  float64   `json:"level"`
	TS     time.Time `json:"ts"`
}

func readingLevel(r Reading) float64 { return r.Level }

type Minute struct {
	Device string
	Start  time.Time
	N      int64
	Mean   float64
	Max    float64
}

var (
	signals = jobs.BusTopic[Reading]{Name: "device-signals"}
	lates   = jobs.BusTopic[Reading]{Name: "late-readings", Topic: jobs.Topic{RetentionAge: 6 * time.Hour}}
)

func temperature(src jobs.Source, sink jobs.Sink) *jobs.Job {
	j := jobs.New("temperature")
	in := jobs.From(j, src, jobs.JSON[Reading](), jobs.EventTime(func(r Reading) time.Time { return r.TS }, 5*time.Second))
	keyed := jobs.KeyBy(in, func(r Reading) string { return r.Device })
	jobs.ToTopic(jobs.Filter(keyed, func(r Reading) bool { return r.Level > 90 }), signals)
	minutes, late := operator.Tumbling(keyed, time.Minute, operator.Aggregates(
		func(device string, p *operator.Pane) Minute {
			return Minute{device, p.Start.Go(), p.Int(0), p.Float(1), p.Float(2)}
		}, operator.Count[Reading](), operator.Mean(readingLevel), operator.Max(readingLevel)),
		operator.Lateness(30*time.Second))
	jobs.ToTopic(late, lates)
	jobs.To(minutes, "main", sink, jobs.JSON[Minute]())
	return j
}

func TestTemperatureJob(t *testing.T) {
	reading := func(at int64, device string, level float64) jobs.Message {
		return jobs.Message{Value: fmt.Appendf(nil, `{"device":%q,"level":%g,"ts":%q}`, device, level, jobs.Time(at))}
	}
	run := func(crash bool) *jobstest.Harness {
		h := jobstest.New(t, temperature(&jobstest.Messages{}, &jobstest.Sink{}))
		first := []jobs.Message{reading(0, "a", 50), reading(1000, "b", 95), reading(59999, "a", 60)}
		then := []jobs.Message{reading(65000, "c", 1), reading(66000, "c", 2), reading(1000, "a", 70), reading(100000, "c", 91), reading(2, "a", 1)}
		h.Feed("", first...)
		h.Barrier()
		if crash {
			h.Feed("", then[:3]...)
			h.Crash()
		}
		h.Feed("", then...)
		h.End()
		return h
	}
	for _, crash := range []bool{false, true} {
		h := run(crash)
		check := func(output string, want ...string) {
			t.Helper()
			if got := h.Lines(output); !slices.Equal(got, want) {
				t.Errorf("crash=%v: %s has\n%s\nwant\n%s", crash, output, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		check("main",
			`{"Device":"a","Start":"1970-01-01T00:00:00Z","N":2,"Mean":55,"Max":60}`,
			`{"Device":"b","Start":"1970-01-01T00:00:00Z","N":1,"Mean":95,"Max":95}`,
			`{"Device":"a","Start":"1970-01-01T00:00:00Z","N":3,"Mean":60,"Max":70}`,
			`{"Device":"c","Start":"1970-01-01T00:01:00Z","N":3,"Mean":31.333333333333332,"Max":91}`)
		check("device-signals",
			`{"device":"b","level":95,"ts":"1970-01-01T00:00:01Z"}`, `{"device":"c","level":91,"ts":"1970-01-01T00:01:40Z"}`)
		check("late-readings", `{"device":"a","level":1,"ts":"1970-01-01T00:00:00.002Z"}`)
		if h.Late != 1 {
			t.Errorf("crash=%v: %d records counted as late, want 1", crash, h.Late)
		}
	}
}

// Job 2: sessions of clicks by user, closed by half an hour of silence.

type Click struct {
	User string    `json:"user"`
	Page string    `json:"page"`
	TS   time.Time `json:"ts"`
}

type Session struct {
	User        string
	First, Last jobs.Time
	Clicks      int
}

func sessions(src jobs.Source, sink jobs.Sink, gap jobs.Time) *jobs.Job {
	j := jobs.New("sessions")
	in := jobs.From(j, src, jobs.JSON[Click](), jobs.EventTime(func(c Click) time.Time { return c.TS }, time.Minute))
	clicks := jobs.KeyBy(in, func(c Click) string { return c.User })
	out, _ := jobs.Process(clicks, func(s *jobs.Step[string, Click, Session, jobs.None]) {
		open, due := jobs.ValueOf[Session](s, "open"), jobs.MapOf[jobs.Time, int](s, "due")
		s.OnRecord = func(c Click) error { // clicks wait until the watermark has put them in order
			n, _ := due.Get(s.Time())
			due.Put(s.Time(), n+1)
			s.SetTimer(s.Time())
			return nil
		}
		s.OnTimer = func(at jobs.Time) error {
			now, ok := open.Get()
			if ok && at-now.Last >= gap {
				s.Emit(now)
				open.Clear()
				ok = false
			}
			if n, clicked := due.Get(at); clicked {
				if !ok {
					now = Session{User: s.Key(), First: at, Last: at}
				}
				now.Last, now.Clicks = at, now.Clicks+n
				open.Set(now)
				due.Delete(at)
				s.SetTimer(at + gap)
			}
			return nil
		}
	}, jobs.ID("sessions"))
	jobs.To(out, "main", sink, jobs.JSON[Session]())
	return j
}

func TestSessionsJob(t *testing.T) {
	const gap = 1800_000
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	clicks, want := map[string][]int64{}, []string{}
	var ms []jobs.Message
	at := int64(0)
	for range 600 {
		at += rng.Int64N(400_000)
		user := fmt.Sprint("u", rng.IntN(4))
		when := at - rng.Int64N(59_000)
		clicks[user] = append(clicks[user], when)
		ms = append(ms, jobs.Message{Value: fmt.Appendf(nil, `{"user":%q,"ts":%q}`, user, jobs.Time(when))})
	}
	for user, times := range clicks {
		slices.Sort(times)
		for i := 0; i < len(times); {
			n := i + 1
			for n < len(times) && times[n]-times[n-1] < gap {
				n++
			}
			want = append(want, fmt.Sprintf(`{"User":%q,"First":%d,"Last":%d,"Clicks":%d}`, user, times[i], times[n-1], n-i))
			i = n
		}
	}
	h := jobstest.New(t, sessions(&jobstest.Messages{}, &jobstest.Sink{}, gap))
	for len(ms) > 0 { // every stretch is run, lost in a crash, and run again
		n := min(len(ms), 1+rng.IntN(80))
		h.Feed("", ms[:n]...)
		h.Crash()
		h.Feed("", ms[:n]...)
		h.Barrier()
		ms = ms[n:]
	}
	h.End()
	got := h.Lines("main")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("seed %d: %d sessions, want %d\n got %v\nwant %v", seed, len(got), len(want), got, want)
	}
	if n := h.State("sessions").Entries(); n != 0 {
		t.Errorf("%d entries left in state", n)
	}
}

// Job 3: orders of a customer, each enriched with the product's price as of the customer's own price list, which
// changes all the time; both come in one topic, as from change capture. Orders without a price wait aside.

type Event struct {
	Customer string  `json:"customer"`
	Product  string  `json:"product"`
	Price    float64 `json:"price,omitempty"` // a change of the price list where set,
	Quantity int     `json:"quantity,omitempty"`
	Gone     bool    `json:"gone,omitempty"` // or its end; else an order
}

type Priced struct {
	Event
	Total float64 `json:"total"`
}

func pricing(sink jobs.Sink) *jobs.Job {
	j := jobs.New("pricing")
	in := jobs.FromTopic(j, jobs.BusTopic[Event]{Name: "orders"}, jobs.SkipErrors())
	events := jobs.KeyBy(in, func(e Event) string { return e.Customer })
	priced, unpriced := jobs.Process(events, func(s *jobs.Step[string, Event, Priced, Event]) {
		prices := jobs.MapOf[string, float64](s, "prices")
		s.OnRecord = func(e Event) error {
			switch price, ok := prices.Get(e.Product); {
			case e.Gone:
				prices.Delete(e.Product)
			case e.Price > 0:
				prices.Put(e.Product, e.Price)
			case ok:
				s.Emit(Priced{e, price * float64(e.Quantity)})
			default:
				s.Side(e)
			}
			return nil
		}
	}, jobs.ID("pricing"))
	jobs.To(priced, "main", sink, jobs.JSON[Priced]())
	jobs.ToTopic(unpriced, jobs.BusTopic[Event]{Name: "unpriced"})
	return j
}

func TestPricingJob(t *testing.T) {
	h := jobstest.New(t, pricing(&jobstest.Sink{}))
	h.Send("", jobstest.At(0, `{"customer":"c","product":"p","price":2.5}`), jobstest.At(1, `{"customer":"c","product":"p","quantity":4}`),
		jobstest.At(2, `not JSON`), jobstest.At(3, `{"customer":"d","product":"p","quantity":1}`))
	h.Barrier()
	h.Send("", jobstest.At(4, `{"customer":"c","product":"p","gone":true}`))
	h.Crash()
	h.Send("", jobstest.At(4, `{"customer":"c","product":"p","quantity":2}`))
	if got, want := h.Lines("main"), []string{`{"customer":"c","product":"p","quantity":4,"total":10}`, `{"customer":"c","product":"p","quantity":2,"total":5}`}; !slices.Equal(got, want) {
		t.Errorf("main has %q, want %q", got, want)
	}
	if got, want := h.Lines("unpriced"), []string{`{"customer":"d","product":"p","quantity":1}`}; !slices.Equal(got, want) {
		t.Errorf("unpriced has %q, want %q", got, want)
	}
	if len(h.Rejected) != 1 || h.Rejected[0].Origin.Offset != 2 {
		t.Errorf("rejected %v, want the record at 2", h.Rejected)
	}
}
