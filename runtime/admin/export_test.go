package admin

import (
	"maps"
	"slices"
)

// Patterns returns what the server serves, as its mux knows it.
func Patterns() []string {
	s, err := New(Config{})
	if err != nil {
		panic(err)
	}
	return slices.Sorted(maps.Keys(s.routes))
}
