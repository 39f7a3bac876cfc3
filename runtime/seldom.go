package runtime

import "time"

const (
	seldomFirst = 2 * time.Second // from the first time on that something is said
	seldomMax   = 10 * time.Minute
)

// seldom lets what goes wrong again and again be said at once, and then at growing intervals.
type seldom struct {
	times int // since the first
	next  time.Time
	wait  time.Duration
}

// again counts one more, and reports whether it is to be said now.
func (s *seldom) again(now time.Time) bool {
	if s.times++; s.times > 1 && now.Before(s.next) {
		return false
	}
	s.wait = min(max(2*s.wait, seldomFirst), seldomMax)
	s.next = now.Add(s.wait)
	return true
}

// over begins anew, and returns how often it was.
func (s *seldom) over() (times int) {
	times = s.times
	*s = seldom{}
	return times
}
