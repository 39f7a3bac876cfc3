package jobs

import (
	"fmt"
	"testing"
)

// BenchmarkEdge fills batches for an edge to one subtask and flushes them after a number of records.
func BenchmarkEdge(b *testing.B) {
	type row [6]uintptr
	for _, n := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("flush=%d", n), func(b *testing.B) {
			in, flush := portOf[row]{}.Writer(EdgeWriter{Targets: 1, Max: 256, Send: func(int, any, int) {}})
			take, r := in.(func(*Rec[row])), Rec[row]{}
			b.ReportAllocs()
			for b.Loop() {
				for range n {
					take(&r)
				}
				flush()
			}
		})
	}
}
