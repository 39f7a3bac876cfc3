package admin

import (
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Patterns returns what the server serves, as its mux knows it.
func Patterns() []string {
	s, err := New(Config{})
	if err != nil {
		panic(err)
	}
	return slices.Sorted(maps.Keys(s.routes))
}

// Wait makes a client wait so long for what is answered at once.
func (c *Client) Wait(d time.Duration) { c.patience = d }

// Socket is a socket that its test looks after.
type Socket = socket

// OpenSocket takes a path.
func OpenSocket(path string, log *slog.Logger) (*Socket, error) { return openSocket(path, log) }

// Look is one look.
func (s *socket) Look() { s.look() }
