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
		if p < lowest || p >= low && p <= high {
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
