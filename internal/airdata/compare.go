package airdata

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// tolerance is how far two numbers may be apart, as a share of the larger.
const tolerance = 1e-9

// Lines returns the lines of a file. A file that is not there has none: an output that writes nothing makes no file.
func Lines(tb testing.TB, path string) []string {
	tb.Helper()
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		tb.Fatal(err)
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		tb.Errorf("%s: the last line is torn", path)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// Compare reports where got is not want as a multiset of JSON objects, the order of fields aside and numbers to 1e-9.
func Compare(tb testing.TB, name string, got, want []string) {
	tb.Helper()
	g, w := parse(tb, name, got), parse(tb, name, want)
	var missing, extra []string
	for len(g) > 0 || len(w) > 0 {
		switch c := compareFirst(g, w); {
		case c < 0:
			extra, g = append(extra, g[0].line), g[1:]
		case c > 0:
			missing, w = append(missing, w[0].line), w[1:]
		default:
			g, w = g[1:], w[1:]
		}
	}
	if len(missing)+len(extra) == 0 {
		return
	}
	tb.Errorf("%s: %d lines, want %d; %d are missing, such as\n%s\n%d are too many, such as\n%s", name, len(got), len(want),
		len(missing), strings.Join(missing[:min(5, len(missing))], "\n"), len(extra), strings.Join(extra[:min(5, len(extra))], "\n"))
}

// parsed is a line as its text without numbers, and its numbers in the order of the fields' names.
type parsed struct {
	line    string
	words   string
	numbers []float64
}

func parse(tb testing.TB, name string, lines []string) []parsed {
	tb.Helper()
	out := make([]parsed, 0, len(lines))
	for _, l := range lines {
		if l == "" {
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal([]byte(l), &fields); err != nil {
			tb.Fatalf("%s: %q: %v", name, l, err)
		}
		p := parsed{line: l}
		for _, k := range slices.Sorted(maps.Keys(fields)) {
			if n, ok := fields[k].(float64); ok {
				p.words += k + "=number;"
				p.numbers = append(p.numbers, n)
				continue
			}
			p.words += fmt.Sprintf("%s=%v;", k, fields[k])
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b parsed) int {
		return cmp.Or(strings.Compare(a.words, b.words), slices.Compare(a.numbers, b.numbers))
	})
	return out
}

// compareFirst orders the first elements; an empty list comes last.
func compareFirst(a, b []parsed) int {
	if len(a) == 0 || len(b) == 0 {
		return cmp.Compare(len(b), len(a))
	}
	if c := strings.Compare(a[0].words, b[0].words); c != 0 {
		return c
	}
	for i, x := range a[0].numbers {
		y := b[0].numbers[i]
		if math.Abs(x-y) > tolerance*max(math.Abs(x), math.Abs(y)) {
			return cmp.Compare(x, y)
		}
	}
	return 0
}
