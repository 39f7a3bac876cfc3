package spec

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Problem is one mistake in a definition.
type Problem struct {
	File   string
	Line   int // from 1; 0 if the whole file is meant
	Column int // in characters, from 1
	Msg    string
	Hint   string  // what to write instead; may be empty
	Source string  // the line, or the part of a long one; what looks like a secret is ***
	Also   []Place // what else has a part in it
	Topic  string  // of a warning: that nobody here reads or writes; a process may know somebody
	Unread bool    // of a topic: it is readers that it lacks, not writers

	mark int // where Column is in Source, of a long line a part
}

// Place is one more place that a problem is about.
type Place struct {
	File         string // empty where the job is not from a file
	Line, Column int
	Msg          string
	Source       string

	mark int
}

// String formats p on several lines: where and what, the line with a mark below, the other places, the hint.
func (p Problem) String() string {
	var b strings.Builder
	writePlace(&b, "", Place{p.File, p.Line, p.Column, p.Msg, p.Source, p.mark})
	for _, a := range p.Also {
		b.WriteString("\n")
		writePlace(&b, "  ", a)
	}
	if p.Hint != "" {
		b.WriteString("\n    " + p.Hint)
	}
	return b.String()
}

func writePlace(b *strings.Builder, indent string, p Place) {
	b.WriteString(indent)
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(b, ":%d:%d", p.Line, p.Column)
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Msg)
	if p.Source != "" {
		b.WriteString("\n    " + strings.ReplaceAll(p.Source, "\t", " "))
		mark := p.mark
		if mark == 0 { // it came from elsewhere, as data
			mark = p.Column
		}
		if mark <= utf8.RuneCountInString(p.Source)+1 {
			b.WriteString("\n    " + strings.Repeat(" ", max(0, mark-1)) + "^")
		}
	}
}

// place returns where p is, with other words.
func (p Problem) place(format string, args ...any) Place {
	return Place{p.File, p.Line, p.Column, fmt.Sprintf(format, args...), p.Source, p.mark}
}
