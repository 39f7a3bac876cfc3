// Package port finds TCP ports for tests that name one before it is listened on, or listen on it again.
//
// A port that the system chooses is of the range out of which it also gives outgoing connections theirs: once nobody listens on
// it, any connection of any process may get it, and one that tries to reach it on this machine may even connect to itself. Those
// of this package are outside of that range, where it leaves any.
package port

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"testing"
)

const (
	lowest = 10_000 // below are those that services are known by
	tries  = 100
)

// Free returns a port of 127.0.0.1 that nobody listens on, and, where the system's range leaves one, that no outgoing connection gets.
func Free(tb testing.TB) int {
	tb.Helper()
	p, err := Find()
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// Addr is the address of a port that is [Free].
func Addr(tb testing.TB) string {
	tb.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(Free(tb)))
}

// Find is Free for who has no test.
func Find() (int, error) { return find(outgoing()) }

// find tries ports outside of low to high. Where these leave nothing, or nothing that is free, any port must do.
func find(low, high int) (int, error) {
	below := max(min(low, 1<<16)-lowest, 0)
	above := max(1<<16-max(high+1, lowest), 0)
	for range tries {
		if below+above == 0 {
			break
		}
		p := lowest + rand.IntN(below+above)
		if p >= lowest+below {
			p = max(high+1, lowest) + p - lowest - below
		}
		if p, err := listened(p); err == nil {
			return p, nil
		}
	}
	return listened(0)
}

// listened is a port, 0 for any, if it can be listened on.
func listened(port int) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, fmt.Errorf("no port of 127.0.0.1 can be listened on: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// outgoing is the range of ports that outgoing connections get; Linux's own, where the system does not say.
func outgoing() (low, high int) {
	low, high = 32_768, 60_999
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(b), &low, &high)
	}
	return low, high
}
