package airdata

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Expected is what the six jobs must write, as lines of JSON, and how many readings must go to the dead letters.
type Expected struct {
	Windows map[string][]string // by pollutant
	Alerts  []string
	Dead    map[string]int // by pollutant
}

// expected keeps what Expect has found, by folder: over four years it takes seconds.
var expected sync.Map

// Expect computes, once for a folder, what the jobs must write.
func Expect(tb testing.TB, d Data) Expected {
	tb.Helper()
	if e, ok := expected.Load(d.Dir); ok {
		return e.(Expected)
	}
	e := expect(tb, d)
	expected.Store(d.Dir, e)
	return e
}

// expect computes it with loops and maps over the prepared files: the mean of a day (of eight hours for ozone) for each
// station, and an alert for each station and day with three or more pollutants over class II of GB 3095-2012. Days are UTC.
func expect(tb testing.TB, d Data) Expected {
	tb.Helper()
	const hour, day = int64(3_600_000), int64(86_400_000)
	type place struct {
		station string
		start   int64
	}
	type cell struct {
		n        int
		sum, max float64
	}
	rules := map[string]struct {
		width int64
		limit float64 // of the mean, in µg/m³
	}{
		"pm25": {day, 75}, "so2": {day, 150}, "no2": {day, 80}, "co": {day, 4000}, "o3": {8 * hour, 160},
	}
	want := Expected{Windows: map[string][]string{}, Dead: map[string]int{}}
	over := map[place]map[string]int{} // exceedances by station and day, then by pollutant
	for _, p := range Pollutants {
		rule := rules[p]
		cells := map[place]*cell{}
		d.each(tb, p, func(line []byte) {
			var r struct {
				Station string
				TS      int64
				Value   any
			}
			if err := json.Unmarshal(line, &r); err != nil {
				tb.Fatal(err)
			}
			v, isNumber := r.Value.(float64)
			if !isNumber {
				want.Dead[p]++
				return
			}
			at := place{r.Station, r.TS - r.TS%rule.width}
			c := cells[at]
			if c == nil {
				c = &cell{max: v}
				cells[at] = c
			}
			c.n++
			c.sum += v
			c.max = max(c.max, v)
		})
		for at, c := range cells {
			mean := c.sum / float64(c.n)
			want.Windows[p] = append(want.Windows[p], fmt.Sprintf(
				`{"station":%q,"pollutant":%q,"start":%q,"end":%q,"n":%d,"mean":%v,"max":%v}`,
				at.station, p, text(at.start), text(at.start+rule.width), c.n, mean, c.max))
			if mean > rule.limit {
				today := place{at.station, at.start - at.start%day}
				if over[today] == nil {
					over[today] = map[string]int{}
				}
				over[today][p]++
			}
		}
	}
	for at, by := range over {
		if len(by) < 3 {
			continue
		}
		n := 0
		for _, times := range by {
			n += times
		}
		want.Alerts = append(want.Alerts, fmt.Sprintf(`{"station":%q,"start":%q,"pollutants":%d,"exceedances":%d}`,
			at.station, text(at.start), len(by), n))
	}
	return want
}

func text(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
