package expr

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Problem is one mistake in the source of an expression.
type Problem struct {
	Pos  int    // byte offset in the source
	Msg  string // what is wrong
	Hint string // what to write instead; may be empty
}

func (p Problem) String() string {
	if p.Hint == "" {
		return p.Msg
	}
	return p.Msg + " (" + p.Hint + ")"
}

// Error is a record's error: an expression that has no value for it.
type Error struct {
	Src string // the expression
	Pos int    // byte offset of the part at fault
	Msg string
}

func (e *Error) Error() string {
	src := e.Src
	if len(src) > 80 {
		src = src[:80] + "…"
	}
	return fmt.Sprintf("%s, at %d of %s", e.Msg, e.Pos+1, src)
}

// Nearest returns the candidate that looks most like name, or "" if none does.
func Nearest(name string, candidates []string) string {
	best, at := "", 1+len(name)/3
	for _, c := range candidates {
		if d := distance(strings.ToLower(name), strings.ToLower(c)); d <= at && (best == "" || d < at) {
			best, at = c, d
		}
	}
	return best
}

// DidYouMean returns a hint with the nearest candidate, or else all of them if they are few.
func DidYouMean(name string, candidates []string) string {
	if n := Nearest(name, candidates); n != "" {
		return "did you mean " + n + "?"
	}
	if len(candidates) == 0 || len(candidates) > 16 {
		return ""
	}
	return "known are " + strings.Join(candidates, ", ")
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that make b of a.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return len(a) + len(b)
	}
	var rows [3][65]int
	for j := range len(b) + 1 {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, now := &rows[(i+2)%3], &rows[i%3], &rows[(i+1)%3]
		if i == 1 {
			last = &rows[1]
		}
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}

// byteOffset turns the parser's positions, which count characters, into bytes.
func byteOffset(src string, runes int) int {
	at := 0
	for ; runes > 0 && at < len(src); runes-- {
		_, n := utf8.DecodeRuneInString(src[at:])
		at += n
	}
	return at
}
