package runtime

import (
	"testing"
	"time"
)

// TestPacer: what is used is paid for with rest, so that those who catch up get their share and no more, together, while
// others are at work; rest that was too long is made good, up to a bound.
func TestPacer(t *testing.T) {
	p := &pacer{cores: 0.25}
	now := time.UnixMilli(1_700_000_000_000)
	if rest := p.use(now, time.Second); !rest.IsZero() {
		t.Errorf("where nobody else is at work, it rests until %v", rest)
	}
	const over = 10 * time.Second
	for _, users := range []int{1, 2, 5} {
		p = &pacer{cores: 0.25}
		begin, used, wakes := now, make([]time.Duration, users), make([]time.Time, users)
		for now.Sub(begin) < over { // one core, on which whoever has rested longest is next
			next := 0
			for i := range wakes {
				if wakes[i].Before(wakes[next]) {
					next = i
				}
			}
			if wakes[next].After(now) {
				now = wakes[next]
			}
			p.atWork(now)
			busy := time.Duration(100+50*next) * time.Microsecond
			now = now.Add(busy)
			used[next] += busy
			wakes[next] = p.use(now, busy)
		}
		all := time.Duration(0)
		for i, d := range used {
			all += d
			if d < over/4/time.Duration(users)/3 {
				t.Errorf("%d users: number %d had %v of %v", users, i, d, over)
			}
		}
		if got := float64(all) / float64(now.Sub(begin)); got < 0.24 || got > 0.26 {
			t.Errorf("%d users had %.3f of a core, not 0.25", users, got)
		}
	}
	p.atWork(now)
	p.use(now, 0)
	late := now.Add(time.Second)
	p.atWork(late)
	if rest := p.use(late, time.Millisecond).Sub(late); rest < time.Millisecond || rest > 4*time.Millisecond {
		t.Errorf("behind a long sleep a millisecond costs %v", rest)
	}
	if rest := p.use(late.Add(2*paceLive), time.Millisecond); !rest.IsZero() {
		t.Errorf("long after the others have ended, it rests until %v", rest)
	}
}
