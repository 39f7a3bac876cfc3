package spec

import (
	"fmt"
	"strings"
)

// Problem is one mistake in a definition.
type Problem struct {
	File   string
	Line   int // from 1; 0 if the whole file is meant
	Column int // in characters, from 1
	Msg    string
	Hint   string // what to write instead; may be empty
	Source string // the line
}

// String formats p on several lines: where and what, the line with a mark below, the hint.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": " + p.Msg)
	if p.Source != "" {
		line, column := strings.ReplaceAll(p.Source, "\t", " "), p.Column
		fmt.Fprintf(&b, "\n    %s\n    %s^", line, strings.Repeat(" ", max(0, column-1)))
	}
	if p.Hint != "" {
		b.WriteString("\n    " + p.Hint)
	}
	return b.String()
}
