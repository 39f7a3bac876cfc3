package spec

import (
	"cmp"
	"errors"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// Replacement is one record of an output as a file of cases is to have it: one that it has already, or a new one.
type Replacement struct {
	Keep *ExpectedRecord // one of the output's Records; nil for New
	New  ExpectedRecord
}

// Update is a change to what a case expects of one output.
type Update struct {
	Output  *Expected
	Records []Replacement
}

// errFromFile is the error of an output whose records are elsewhere.
var errFromFile = errors.New("its records are from a file, which is for you to write")

// Updated returns the text of a file of cases in which outputs of its cases are expected as updates say. Records that are
// kept stay as they are written, with their comments, and so does everything else. The updates are of one file.
func Updated(updates []Update) ([]byte, error) {
	type edit struct {
		from, to int
		text     string
	}
	var edits []edit
	f := updates[0].Output.file
	for _, u := range updates {
		x := u.Output
		if slices.ContainsFunc(x.Records, func(r ExpectedRecord) bool { return r.file }) {
			return nil, errors.New("output " + x.Name + ": " + errFromFile.Error())
		}
		from, to := f.span(x.list)
		flow := x.list.Style&yaml.FlowStyle != 0
		switch colon := f.colon(x.name); {
		case x.inFlow:
			edits = append(edits, edit{from, to, f.flowList(x, u.Records)})
		case len(u.Records) == 0 && flow:
			edits = append(edits, edit{from, to, "[]"})
		case len(u.Records) == 0:
			edits = append(edits, edit{f.lineStart(from) - 1, to, ""}, edit{colon, colon, " []"})
		case flow: // the list goes below its line, what stands behind it on the line stays
			eol := to + len(lineRest(f.src[to:]))
			edits = append(edits, edit{colon, to, ""}, edit{eol, eol, "\n" + f.blockList(x, u.Records, x.name.Column+1)})
		default:
			edits = append(edits, edit{f.lineStart(from), to, f.blockList(x, u.Records, x.list.Column-1)})
		}
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(b.from, a.from) })
	src := f.src
	for _, e := range edits {
		src = src[:e.from] + e.text + src[e.to:]
	}
	return []byte(src), nil
}

func (f *file) lineStart(at int) int { return strings.LastIndexByte(f.src[:at], '\n') + 1 }

// colon returns where the colon behind a name ends.
func (f *file) colon(name *yaml.Node) int {
	at := f.offset(name.Line, name.Column)
	if name.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		at = skipQuoted(f.src, at)
	}
	return at + strings.IndexByte(f.src[at:], ':') + 1
}

// span returns where a list begins and ends: one in brackets with them, another from its first dash to the end of its last
// line that is neither blank nor a comment.
func (f *file) span(list *yaml.Node) (from, to int) {
	from = f.offset(list.Line, list.Column)
	if list.Style&yaml.FlowStyle != 0 {
		return from, closing(f.src, from)
	}
	to = from
	for at := f.lineStart(from); at < len(f.src); {
		line := lineRest(f.src[at:])
		text := strings.TrimLeft(line, " ")
		indent := len(line) - len(text)
		text = strings.TrimRight(text, " \t\r")
		isItem := indent == list.Column-1 && (text == "-" || strings.HasPrefix(text, "- "))
		comment := text == "" || text[0] == '#'
		if !comment && indent < list.Column && !isItem {
			break
		}
		if !comment {
			to = at + indent + len(text)
		}
		at += len(line) + 1
	}
	return from, to
}

// closing returns the end of what begins with a bracket or a brace at from.
func closing(s string, from int) int {
	depth := 0
	for i := from; i < len(s); i++ {
		switch c := s[i]; {
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case (c == '"' || c == '\'') && strings.IndexByte(" \t\n[{,:", s[i-1]) >= 0: // elsewhere it is a character of a word
			i = skipQuoted(s, i) - 1
		case c == '#' && strings.IndexByte(" \t\n", s[i-1]) >= 0:
			i += len(lineRest(s[i:])) - 1
		}
	}
	return len(s)
}

// skipQuoted returns the end of the quoted text that begins at.
func skipQuoted(s string, at int) int {
	q := s[at]
	for i := at + 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && q == '"':
			i++
		case s[i] == q && q == '\'' && strings.HasPrefix(s[i+1:], "'"):
			i++
		case s[i] == q:
			return i + 1
		}
	}
	return len(s)
}

// itemText returns the lines of an item of a block list, with the comments above it.
func (f *file) itemText(x *Expected, item int) string {
	from, to := f.span(x.list)
	starts := make([]int, len(x.list.Content)) // of the items' first lines
	for i, n := range x.list.Content {
		at := f.lineStart(f.offset(n.Line, n.Column))
		for at > from && !strings.HasPrefix(strings.TrimLeft(f.src[at:], " "), "-") {
			at = f.lineStart(at - 1)
		}
		starts[i] = at
	}
	if item+1 < len(starts) {
		to = f.trimmed(starts[item+1])
	}
	begin := f.lineStart(from)
	if item > 0 {
		begin = f.trimmed(starts[item]) + 1
	}
	return f.src[begin:to]
}

// trimmed returns the end of the last line before at that is neither blank nor a comment.
func (f *file) trimmed(at int) int {
	for at > 0 {
		start := f.lineStart(at - 1)
		if text := strings.TrimSpace(f.src[start : at-1]); text != "" && text[0] != '#' {
			return at - 1
		}
		at = start
	}
	return 0
}

func (f *file) blockList(x *Expected, records []Replacement, indent int) string {
	var lines []string
	pad := strings.Repeat(" ", indent)
	for _, r := range records {
		switch {
		case r.Keep != nil && x.list.Style&yaml.FlowStyle == 0:
			lines = append(lines, f.itemText(x, r.Keep.item))
		case r.Keep != nil:
			n := x.list.Content[r.Keep.item]
			from := f.offset(n.Line, n.Column)
			lines = append(lines, pad+"- "+f.src[from:closing(f.src, from)])
		default:
			lines = append(lines, pad+"- "+strings.Join(r.New.fields(), "\n"+pad+"  "))
		}
	}
	return strings.Join(lines, "\n")
}

func (f *file) flowList(x *Expected, records []Replacement) string {
	var items []string
	for _, r := range records {
		if r.Keep == nil {
			items = append(items, "{"+strings.Join(r.New.fields(), ", ")+"}")
			continue
		}
		n := x.list.Content[r.Keep.item]
		from := f.offset(n.Line, n.Column)
		items = append(items, f.src[from:closing(f.src, from)])
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// fields are the record as it is written, a field each.
func (r *ExpectedRecord) fields() (out []string) {
	switch {
	case r.Text != nil:
		out = append(out, "text: "+string(value.AppendString(nil, *r.Text)))
	case r.Has != nil:
		out = append(out, "has: "+written(r.Has))
	case r.Value != nil:
		out = append(out, "value: "+written(r.Value))
	}
	if r.Key != nil {
		out = append(out, "key: "+written(r.Key))
	}
	if r.Time != nil {
		out = append(out, `time: "`+r.Time.String()+`"`)
	}
	if len(r.Headers) > 0 {
		var hs []string
		for name, v := range r.Headers {
			hs = append(hs, word(name)+": "+word(v))
		}
		slices.Sort(hs)
		out = append(out, "headers: {"+strings.Join(hs, ", ")+"}")
	}
	return out
}

// written is a JSON value as people write it in YAML.
func written(b []byte) string {
	v, err := value.Parse(b, nil)
	if err != nil {
		return string(value.AppendString(nil, string(b)))
	}
	switch text := string(b); {
	case v.Kind() == value.String:
		return word(v.Text())
	case strings.HasPrefix(text, "{"):
		var fields []string
		v.Fields(nil, func(name string, v value.Value) bool {
			fields = append(fields, fieldName(name)+": "+inner(v))
			return true
		})
		return "{" + strings.Join(fields, ", ") + "}"
	case strings.HasPrefix(text, "["):
		var elems []string
		v.Elems(nil, func(v value.Value) bool { elems = append(elems, inner(v)); return true })
		return "[" + strings.Join(elems, ", ") + "]"
	default:
		return text
	}
}

func inner(v value.Value) string {
	b, err := value.AppendJSON(nil, v)
	if err != nil {
		return "null"
	}
	return written(b)
}

var (
	plain     = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_/.-]*$`)
	otherWise = regexp.MustCompile(`(?i)^(true|false|null|yes|no|on|off|y|n)$`)
)

// fieldName is word of what stands before a colon, where n and y need no quotes.
func fieldName(s string) string {
	if s == "n" || s == "y" {
		return s
	}
	return word(s)
}

// word is a string as it is written in YAML: in quotes where it would be something else without.
func word(s string) string {
	if plain.MatchString(s) && !otherWise.MatchString(s) {
		return s
	}
	return string(value.AppendString(nil, s))
}
