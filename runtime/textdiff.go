package runtime

import (
	"fmt"
	"strings"
)

const (
	diffContext  = 3
	diffLinesMax = 2000 // of both texts; beyond it only their lengths are told
)

// textDiff returns the lines that differ, with some around them, as diff -u does; "" where none do.
func textDiff(a, b []byte) string {
	was, is := splitLines(a), splitLines(b)
	if len(was)+len(is) > diffLinesMax {
		return fmt.Sprintf("the definition has %d lines, and had %d\n", len(is), len(was))
	}
	marks, lines := diffLines(was, is)
	var out strings.Builder
	shown := -1 // the last line written
	for i := range lines {
		near := false
		for k := max(0, i-diffContext); k <= min(len(lines)-1, i+diffContext); k++ {
			near = near || marks[k] != ' '
		}
		if !near {
			continue
		}
		if shown >= 0 && shown != i-1 {
			out.WriteString("…\n")
		}
		shown = i
		out.WriteByte(marks[i])
		out.WriteString(lines[i] + "\n")
	}
	return out.String()
}

func splitLines(b []byte) []string {
	text := strings.TrimSuffix(string(b), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// diffLines returns the lines of both texts in order, each with ' ', '-' or '+', by their longest common subsequence.
func diffLines(a, b []string) (marks []byte, lines []string) {
	common := make([][]int, len(a)+1) // of a[i:] and b[k:]
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for k := len(b) - 1; k >= 0; k-- {
			if a[i] == b[k] {
				common[i][k] = common[i+1][k+1] + 1
			} else {
				common[i][k] = max(common[i+1][k], common[i][k+1])
			}
		}
	}
	add := func(mark byte, line string) {
		marks, lines = append(marks, mark), append(lines, line)
	}
	i, k := 0, 0
	for i < len(a) || k < len(b) {
		switch {
		case i < len(a) && k < len(b) && a[i] == b[k]:
			add(' ', a[i])
			i, k = i+1, k+1
		case i < len(a) && (k == len(b) || common[i+1][k] >= common[i][k+1]):
			add('-', a[i])
			i++
		default:
			add('+', b[k])
			k++
		}
	}
	return marks, lines
}
