package jobs

import (
	"strconv"
	"strings"
	"time"
)

// ParseAgo reads how long before something a place is: a duration, which may begin with days of 24 hours, such as 10d or 1d12h.
func ParseAgo(s string) (time.Duration, bool) {
	var all time.Duration
	if days, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, false
		}
		if all = time.Duration(n) * 24 * time.Hour; rest == "" {
			return all, true
		}
		s = rest
	}
	d, err := time.ParseDuration(s)
	return all + d, err == nil && d >= 0 && all+d >= all
}
