package spec

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

var (
	jsonNumber  = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
	likeANumber = regexp.MustCompile(`^[-+.]?[0-9][0-9a-zA-Z_.+-]*$|^[-+]?\.(inf|nan)$`)
	plainWord   = regexp.MustCompile(`^[0-9-]+T[0-9:.]+(Z|[+-][0-9:]+)$|^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)
)

// json returns the JSON value that a node is, in one line: names in the order of the text, numbers as they are written.
// What YAML takes for a number, a time or a yes, and JSON does not, is no number here; where that may surprise it is an
// error that asks for quotes.
func (f *file) json(n *yaml.Node, what string) (b []byte, ok bool) {
	b, ok = f.appendJSON(nil, n, what)
	if !ok {
		return nil, false
	}
	return b, true
}

func (f *file) appendJSON(b []byte, n *yaml.Node, what string) (_ []byte, ok bool) {
	ok = true
	switch n.Kind {
	case yaml.MappingNode:
		b = append(b, '{')
		for i, e := range f.pairs(n, what) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(value.AppendString(b, e.name.Value), ':')
			good := true
			b, good = f.appendJSON(b, e.value, what+"."+e.name.Value)
			ok = ok && good
		}
		return append(b, '}'), ok
	case yaml.SequenceNode:
		b = append(b, '[')
		for i, e := range n.Content {
			if i > 0 {
				b = append(b, ',')
			}
			good := true
			b, good = f.appendJSON(b, e, what)
			ok = ok && good
		}
		return append(b, ']'), ok
	case yaml.ScalarNode:
		return f.appendScalar(b, n, what)
	}
	f.problem(n, "", "%s: want a JSON value", what)
	return b, false
}

func (f *file) appendScalar(b []byte, n *yaml.Node, what string) (_ []byte, ok bool) {
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle|yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		return value.AppendString(b, n.Value), true
	}
	switch s := n.Value; {
	case isEmpty(n), s == "null":
		return append(b, "null"...), true
	case s == "true", s == "false":
		return append(b, s...), true
	case jsonNumber.MatchString(s):
		if _, err := value.Parse([]byte(s), nil); err != nil {
			f.problem(n, "", "%s: %s is more than a number can be", what, s)
			return b, false
		}
		return append(b, s...), true
	case likeANumber.MatchString(s) && !plainWord.MatchString(s):
		f.problem(n, "write it as JSON does, or put it in quotes", "%s: %s is no number in JSON", what, s)
		return b, false
	case n.ShortTag() == "!!bool":
		f.problem(n, "write true or false, or put it in quotes", "%s: %s is neither true nor false in JSON", what, s)
		return b, false
	default:
		return value.AppendString(b, s), true
	}
}

// word reads a scalar as it stands.
func (f *file) word(n *yaml.Node, what string) (s string, ok bool) {
	if n.Kind != yaml.ScalarNode || isEmpty(n) && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 {
		f.problem(n, "", "%s: want a word, not %s", what, describe(n))
		return "", false
	}
	return n.Value, true
}

// flag reads true or false.
func (f *file) flag(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || n.Value != "true" && n.Value != "false" {
		f.problem(n, "", "%s: want true or false, not %s", what, describe(n))
	}
	return n.Value == "true"
}

// moment reads an event time: RFC 3339, or milliseconds since 1970.
func (f *file) moment(n *yaml.Node, what string) (jobs.Time, bool) {
	if n.Kind == yaml.ScalarNode {
		if ms, err := value.ParseTime(n.Value); err == nil {
			return jobs.Time(ms), true
		}
		var ms int64
		if json.Unmarshal([]byte(n.Value), &ms) == nil && jsonNumber.MatchString(n.Value) && value.TimeInRange(ms) {
			return jobs.Time(ms), true
		}
	}
	f.problem(n, "write it as "+jobs.TimeOf(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)).String(), "%s: want a time, not %s", what, describe(n))
	return 0, false
}

// lines cuts a file of JSON lines into its values.
func jsonLines(content []byte) (values [][]byte, bad int, err error) {
	at := 0
	for line := range bytes.Lines(content) {
		at++
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if _, err := value.Parse(line, nil); err != nil {
			return nil, at, err
		}
		values = append(values, line)
	}
	return values, 0, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
