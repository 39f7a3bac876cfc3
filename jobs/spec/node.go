package spec

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
)

// Limits of a definition file.
const (
	MaxFileBytes = 128 << 10
	MaxMarks     = 10_000 // of the characters that YAML is built of: each may cost a node, of a kilobyte
	MaxNesting   = 24
	MaxDocuments = 256
	maxProblems  = 200
)

// file is the text of a definition file and what is wrong with it.
type file struct {
	name     string
	src      string
	starts   []int // of the lines
	problems []Problem
	hidden   map[int]int    // lines, from a column on, that messages do not show
	masks    map[int]string // lines as messages show them
	large    bool           // src has been left out, for that

	expressions int // bytes of those read
}

func newFile(name string, src []byte) *file {
	if len(src) > MaxFileBytes {
		return &file{name: name, starts: []int{0}, large: true}
	}
	f := &file{name: name, src: strings.TrimPrefix(string(src), "\uFEFF"), starts: []int{0}}
	for i, r := range f.src {
		switch r {
		case '\r':
			if strings.HasPrefix(f.src[i+1:], "\n") {
				continue
			}
			fallthrough
		case '\n', 0x85, 0x2028, 0x2029: // what the YAML parser takes for a line's end
			f.starts = append(f.starts, i+utf8.RuneLen(r))
		}
	}
	return f
}

// line returns the text of a line, from 1, as it may be shown.
func (f *file) line(n int) string {
	if n < 1 || n > len(f.starts) {
		return ""
	}
	end := len(f.src)
	if n < len(f.starts) {
		end = f.starts[n]
	}
	text := strings.TrimRight(f.src[f.starts[n-1]:end], "\r\n\u0085\u2028\u2029")
	return strings.Map(func(r rune) rune { // each one character, as columns count them
		if unshown(r) || r == 0xFEFF {
			return utf8.RuneError
		}
		return r
	}, text)
}

func (f *file) lineBytes(n int) int {
	if n < 1 || n >= len(f.starts) {
		return len(f.src) - f.starts[len(f.starts)-1]
	}
	return f.starts[n] - f.starts[n-1]
}

func (f *file) add(line, column int, hint, format string, args ...any) {
	f.problems = append(f.problems, Problem{File: f.name, Line: line, Column: column, Hint: hint,
		Msg: fmt.Sprintf(format, args...)})
}

// at returns a problem at a node, without words yet.
func (f *file) at(n *yaml.Node) Problem {
	p := Problem{File: f.name, Line: n.Line, Column: n.Column}
	p.Source, p.mark = f.shown(n.Line, n.Column)
	return p
}

// problem reports a mistake at a node.
func (f *file) problem(n *yaml.Node, hint, format string, args ...any) {
	f.add(n.Line, n.Column, hint, format, args...)
}

// problemWith reports a mistake in which another place has a part.
func (f *file) problemWith(also Place, n *yaml.Node, hint, format string, args ...any) {
	f.problem(n, hint, format, args...)
	f.problems[len(f.problems)-1].Also = []Place{also}
}

// inside reports a mistake in the expression that n is.
func (f *file) inside(n *yaml.Node, ps []expr.Problem) {
	for _, p := range ps {
		if len(f.problems) >= maxProblems { // they are not shown: no need to search for their places
			f.problem(n, p.Hint, "%s", p.Msg)
			continue
		}
		line, column := f.place(n, p.Pos)
		f.add(line, column, p.Hint, "%s", p.Msg)
	}
}

// offset returns where in the text a line and column are.
func (f *file) offset(line, column int) int {
	if line < 1 || line > len(f.starts) {
		return len(f.src)
	}
	at := f.starts[line-1]
	for ; column > 1 && at < len(f.src); column-- {
		_, n := utf8.DecodeRuneInString(f.src[at:])
		at += n
	}
	return at
}

func (f *file) position(at int) (line, column int) {
	line, found := slices.BinarySearch(f.starts, at)
	if found {
		line++
	}
	return line, utf8.RuneCountInString(f.src[f.starts[line-1]:at]) + 1
}

// place returns where the byte off of a scalar's value stands in the text, through quotes, escapes and folding.
func (f *file) place(n *yaml.Node, off int) (line, column int) {
	at := f.offset(n.Line, n.Column)
	block := false
	switch {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		block = true
		if i := strings.IndexByte(f.src[at:], '\n'); i >= 0 {
			at = skipBlank(f.src, at+i+1)
		}
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		at++
	}
	for i := 0; i < off && i < len(n.Value) && at < len(f.src); {
		switch c := f.src[at]; {
		case c == '\\' && n.Style&yaml.DoubleQuotedStyle != 0:
			at += escapeLen(f.src[at:])
			_, size := utf8.DecodeRuneInString(n.Value[i:])
			i += size
			continue
		case c == '\'' && n.Style&yaml.SingleQuotedStyle != 0:
			at += 2
		case c == '\n' || c == '\r':
			at = skipBlank(f.src, at)
		case !block && (c == ' ' || c == '\t') && strings.TrimLeft(lineRest(f.src[at:]), " \t\r") == "":
			at = skipBlank(f.src, at)
		default:
			at++
		}
		i++
	}
	if at > len(f.src) || at < 0 {
		return n.Line, n.Column
	}
	return f.position(at)
}

func lineRest(s string) string {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return s[:i]
	}
	return s
}

func skipBlank(s string, at int) int {
	for at < len(s) && strings.IndexByte(" \t\r\n", s[at]) >= 0 {
		at++
	}
	return at
}

func escapeLen(s string) int {
	n := 2
	if len(s) > 1 {
		switch s[1] {
		case 'x':
			n = 4
		case 'u':
			n = 6
		case 'U':
			n = 10
		}
	}
	return min(n, len(s))
}

// documents parses the file. What YAML itself finds wrong ends it there: what stands behind cannot be told.
func (f *file) documents() []*yaml.Node {
	if f.large {
		f.add(0, 0, "split it: a directory may hold many", "the file has more than %d bytes", MaxFileBytes)
		return nil
	}
	if i := tooMany(f.src); i >= 0 {
		line, column := f.position(i)
		f.add(line, column, "split it: a directory may hold many", "the file has more than %d lines, fields and elements", MaxMarks)
		return nil
	}
	if i, what := notText(f.src); what != "" {
		line, column := f.position(i)
		f.add(line, column, "", "%s", what)
		return nil
	}
	var roots []*yaml.Node
	l, err := yaml.NewLoader(strings.NewReader(f.src), yaml.WithV4Defaults())
	for err == nil && len(roots) <= MaxDocuments {
		var n yaml.Node
		if err = l.Load(&n); err == nil && n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
			if root := n.Content[0]; !isEmpty(root) && f.harmless(root, 0) {
				roots = append(roots, root)
			}
		}
	}
	switch {
	case len(roots) > MaxDocuments:
		f.problem(roots[MaxDocuments], "", "the file has more than %d documents", MaxDocuments)
	case err != nil && err != io.EOF:
		f.syntax(err)
	}
	return roots
}

// notText returns the first place in src of what no text file holds, and what it is. The YAML parser would say it without a
// place, or not at all.
func notText(src string) (at int, what string) {
	for i, r := range src {
		switch {
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(src[i:]); size == 1 {
				return i, "the file is not UTF-8"
			}
		case r == '\uFEFF' && what == "":
			at, what = i, "there is a byte order mark in the middle of the file"
		case unshown(r) && what == "":
			at, what = i, fmt.Sprintf("there is a control character, U+%04X, in the file", r)
		}
	}
	return at, what
}

// unshown reports whether r is a control character that YAML has not, and that no terminal should get.
func unshown(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\t\n\r\u0085", r) }

// tooMany returns where src has more of the characters that may begin or end a node than MaxMarks, or -1.
func tooMany(src string) int {
	n := 0
	var is [256]bool
	for _, c := range []byte("\n\r,:-?[]{}&*!#|>") {
		is[c] = true
	}
	for i := range len(src) {
		if is[src[i]] {
			if n++; n > MaxMarks {
				return i
			}
		}
	}
	return -1
}

func isEmpty(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// syntax reports what the YAML parser says.
func (f *file) syntax(err error) {
	line, column, msg := 1, 1, err.Error()
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		line, column, msg = max(1, e.Mark.Line), max(1, e.Mark.Column), e.Message
	}
	line = min(line, len(f.starts))
	hint := ""
	if strings.Contains(f.line(line), "\t") {
		hint = "YAML is indented with spaces, not with tabs"
	}
	f.add(line, column, hint, "not YAML: %s", msg)
}

// harmless reports whether a node and what lies below is free of what could blow it up; it says what is not.
func (f *file) harmless(n *yaml.Node, depth int) bool {
	switch {
	case depth > MaxNesting:
		f.problem(n, "", "nested deeper than %d", MaxNesting)
		return false
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		f.problem(n, "write the value out", "anchors and aliases are not allowed")
		return false
	case n.Style&yaml.TaggedStyle != 0:
		f.problem(n, "leave the tag out", "tags are not allowed")
		return false
	}
	ok := true
	for _, c := range n.Content {
		ok = f.harmless(c, depth+1) && ok
	}
	return ok
}

// entry is one field of a mapping.
type entry struct{ name, value *yaml.Node }

// block is a mapping whose fields have been checked against a table.
type block struct {
	node   *yaml.Node
	fields map[string]entry
}

func (b block) has(name string) bool { _, ok := b.fields[name]; return ok }

func (b block) get(name string) *yaml.Node { return b.fields[name].value }

// which returns those of names that are given, in the order of the text.
func (b block) which(names []string) []string {
	var given []string
	for _, n := range names {
		if b.has(n) {
			given = append(given, n)
		}
	}
	slices.SortFunc(given, func(x, y string) int {
		if d := b.at(x).Line - b.at(y).Line; d != 0 {
			return d
		}
		return b.at(x).Column - b.at(y).Column
	})
	return given
}

// at returns the name's node where the field is given, else the block's own.
func (b block) at(name string) *yaml.Node {
	if e, ok := b.fields[name]; ok {
		return e.name
	}
	return b.node
}

// pairs reads a mapping with any names, each once, in order.
func (f *file) pairs(n *yaml.Node, what string) []entry {
	if n.Kind != yaml.MappingNode {
		hint := ""
		if what == "filter" && n.Kind == yaml.ScalarNode {
			hint = "write filter: {if: …}"
		}
		f.problem(n, hint, "%s: want fields, not %s", what, describe(n))
		return nil
	}
	seen := map[string]*yaml.Node{}
	var out []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			f.problem(k, "", "%s: the name of a field is a word", what)
			continue
		}
		if first, twice := seen[k.Value]; twice {
			f.problemWith(f.at(first).place("the first is here"), k, "", "%s is given twice", clip(k.Value))
			continue
		}
		seen[k.Value] = k
		out = append(out, entry{k, v})
	}
	return out
}

// block reads a mapping that has just the fields of a table.
func (f *file) block(n *yaml.Node, what string, table []Field) block {
	b := block{node: n, fields: map[string]entry{}}
	names := fieldNames(table)
	for _, e := range f.pairs(n, what) {
		if !slices.Contains(names, e.name.Value) {
			hint := laterFields[e.name.Value]
			if hint == "" && len(f.problems) < maxProblems {
				hint = expr.DidYouMean(e.name.Value, names)
			}
			if slices.Contains(stepKinds, what) && (e.name.Value == "id" || e.name.Value == "parallelism") {
				hint = fmt.Sprintf("it stands beside %s: - %s: {…}, and below that, in line with it, %s: …", what, what, e.name.Value)
			}
			f.problem(e.name, hint, "%s has no field %s", what, clip(e.name.Value))
			continue
		}
		b.fields[e.name.Value] = e
	}
	for _, field := range table {
		if field.Required && !b.has(field.Name) && n.Kind == yaml.MappingNode {
			f.problem(n, field.Doc, "%s needs %s", what, field.Name)
		}
	}
	return b
}

// describe says what a node is, for a message.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a block of fields"
	case yaml.SequenceNode:
		return "a list"
	}
	switch {
	case isEmpty(n):
		return "nothing"
	}
	return strconv.Quote(clip(n.Value))
}

// clip keeps messages short.
func clip(s string) string {
	if len(s) <= 60 {
		return s
	}
	return strings.ToValidUTF8(s[:60], "") + "…"
}
