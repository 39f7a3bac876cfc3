package port

import (
	"net"
	"strconv"
	"testing"
)

// TestFree: what it gives can be listened on, and is outside of the range of outgoing connections, of which this one is.
func TestFree(t *testing.T) {
	low, high := outgoing()
	for range 50 {
		p := Free(t)
		if low > lowest && (p < lowest || p >= low && p <= high) { // else the system leaves too little, or nothing
			t.Fatalf("%d, of %d to %d", p, low, high)
		}
	}
	l, err := net.Listen("tcp", Addr(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, own, err := net.SplitHostPort(c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := strconv.Atoi(own); n < low || n > high {
		t.Errorf("an outgoing connection has port %s, not of %d to %d", own, low, high)
	}
}

// TestFind: a port is found in what a range leaves, however little, and where it leaves nothing any that can be listened on.
func TestFind(t *testing.T) {
	for _, tt := range []struct {
		low, high int
		of        func(p int) bool
	}{
		{32_768, 60_999, func(p int) bool { return p >= lowest && (p < 32_768 || p > 60_999) }},
		{1024, 60_999, func(p int) bool { return p > 60_999 }},
		{1024, 65_435, func(p int) bool { return p > 65_435 }},
		{lowest + 100, 65_535, func(p int) bool { return p >= lowest && p < lowest+100 }},
		{1, 1024, func(p int) bool { return p >= lowest }},
		{1024, 65_535, func(p int) bool { return p > 0 }},
		{1, 65_535, func(p int) bool { return p > 0 }},
		{lowest, 65_535, func(p int) bool { return p > 0 }},
	} {
		for range 20 {
			p, err := find(tt.low, tt.high)
			if err != nil || !tt.of(p) {
				t.Fatalf("where outgoing connections have %d to %d: %d, %v", tt.low, tt.high, p, err)
			}
		}
	}
}
