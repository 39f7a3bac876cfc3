package casetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// pair is one line of a comparison: a record that was expected, one that came, or both. Where both are there and Why is
// not empty, they belong together and differ.
type pair struct {
	Want *spec.ExpectedRecord
	Got  *Output
	Why  []difference
}

func (p pair) ok() bool { return p.Want != nil && p.Got != nil && len(p.Why) == 0 }

// difference is one place where a record is not as expected.
type difference struct {
	Where     string // "value.n", "key", "time"
	Want, Got string // JSON; "" where there is nothing
}

func (d difference) String() string {
	switch {
	case d.Got == "":
		return fmt.Sprintf("%s: want %s, there is none", d.Where, d.Want)
	case d.Want == "":
		return fmt.Sprintf("%s: %s is one too many", d.Where, d.Got)
	}
	return fmt.Sprintf("%s: want %s, got %s", d.Where, d.Want, d.Got)
}

// compare returns how a record that came differs from what was expected.
func compare(want *spec.ExpectedRecord, got *Output) (out []difference) {
	switch {
	case want.Text != nil:
		if *want.Text != string(got.Message.Value) {
			out = append(out, difference{"text", quote(*want.Text), quote(string(got.Message.Value))})
		}
	case want.Value != nil:
		out = diffJSON(out, "value", parse(want.Value), valueOf(got), false)
	case want.Has != nil:
		out = diffJSON(out, "value", parse(want.Has), valueOf(got), true)
	}
	if want.Key != nil {
		out = diffJSON(out, "key", parse(want.Key), keyOf(got), false)
	}
	if want.Time != nil && *want.Time != got.Message.Time {
		out = append(out, difference{"time", want.Time.String(), got.Message.Time.String()})
	}
	for _, name := range slices.Sorted(maps.Keys(want.Headers)) {
		w := want.Headers[name]
		i := slices.IndexFunc(got.Message.Headers, func(h jobs.Header) bool { return h.Name == name })
		switch {
		case i < 0:
			out = append(out, difference{"headers." + name, quote(w), ""})
		case string(got.Message.Headers[i].Value) != w:
			out = append(out, difference{"headers." + name, quote(w), quote(string(got.Message.Headers[i].Value))})
		}
	}
	return out
}

func quote(s string) string { return string(value.AppendString(nil, strings.ToValidUTF8(s, "\uFFFD"))) }

// parse returns a JSON value that has been checked.
func parse(b []byte) value.Value {
	v, err := value.Parse(b, nil)
	if err != nil {
		return value.OfString(strings.ToValidUTF8(string(b), "\uFFFD"))
	}
	return v
}

// valueOf is the value of a record that came; of one that is no JSON, such as some dead letters, the text.
func valueOf(o *Output) value.Value { return parse(o.Message.Value) }

func keyOf(o *Output) value.Value { return value.DecodeKey(o.Key.Bytes, nil) }

func text(v value.Value) string {
	b, err := value.AppendJSON(nil, v)
	if err != nil {
		return "?"
	}
	return string(b)
}

// diffJSON adds where two JSON values differ: numbers are compared as numbers, the fields of objects by name. part lets
// objects have fields that are not wanted.
func diffJSON(out []difference, at string, want, got value.Value, part bool) []difference {
	if isObject(want) && isObject(got) {
		names := map[string]bool{}
		want.Fields(nil, func(name string, w value.Value) bool {
			names[name] = true
			if g := got.Member(name, nil); got.Has(name) {
				out = diffJSON(out, at+"."+name, w, g, part)
			} else {
				out = append(out, difference{at + "." + name, text(w), ""})
			}
			return true
		})
		got.Fields(nil, func(name string, g value.Value) bool {
			if !names[name] && !part {
				out = append(out, difference{at + "." + name, "", text(g)})
			}
			return true
		})
		return out
	}
	if w, g, ok := lists(want, got); ok && len(w) == len(g) {
		for i := range w {
			out = diffJSON(out, fmt.Sprintf("%s[%d]", at, i), w[i], g[i], part)
		}
		return out
	}
	if !value.Equal(want, got) {
		out = append(out, difference{at, text(want), text(got)})
	}
	return out
}

func isObject(v value.Value) bool { b := text(v); return strings.HasPrefix(b, "{") }

func lists(a, b value.Value) (x, y []value.Value, ok bool) {
	if !strings.HasPrefix(text(a), "[") || !strings.HasPrefix(text(b), "[") {
		return nil, nil, false
	}
	a.Elems(nil, func(v value.Value) bool { x = append(x, v); return true })
	b.Elems(nil, func(v value.Value) bool { y = append(y, v); return true })
	return x, y, true
}

// match compares what an output was given with what a case expects.
func match(x *spec.Expected, got []Output) []pair {
	if x.Order != spec.InOrder {
		return matchFrom(x, got)
	}
	var before, behind []pair // what is equal at both ends need not be searched
	same := func(i, j int) bool { return len(compare(&x.Records[i], &got[j])) == 0 }
	lo, hiWant, hiGot := 0, len(x.Records), len(got)
	for ; lo < hiWant && lo < hiGot && same(lo, lo); lo++ {
		before = append(before, pair{Want: &x.Records[lo], Got: &got[lo]})
	}
	for ; hiWant > lo && hiGot > lo && same(hiWant-1, hiGot-1); hiWant, hiGot = hiWant-1, hiGot-1 {
		behind = append(behind, pair{Want: &x.Records[hiWant-1], Got: &got[hiGot-1]})
	}
	slices.Reverse(behind)
	between := *x
	between.Records = x.Records[lo:hiWant]
	return slices.Concat(before, matchFrom(&between, got[lo:hiGot]), behind)
}

func matchFrom(x *spec.Expected, got []Output) []pair {
	n, m := len(x.Records), len(got)
	equal := make([][]bool, n)
	for i := range equal {
		equal[i] = make([]bool, m)
		for j := range equal[i] {
			equal[i][j] = len(compare(&x.Records[i], &got[j])) == 0
		}
	}
	var of []int // which of got each expected record is; -1 for none
	if x.Order == spec.InOrder {
		of = longest(equal, n, m)
	} else {
		of = assign(equal, n, m)
	}
	taken := make([]bool, m)
	for _, j := range of {
		if j >= 0 {
			taken[j] = true
		}
	}
	differ := alike(x, got, of, taken)
	var out []pair
	next := 0
	flush := func(to int) { // what came in between and was not expected
		for ; next < to; next++ {
			if !taken[next] && x.Order != spec.Contains {
				out = append(out, pair{Got: &got[next]})
			}
		}
	}
	for i, j := range of {
		p := pair{Want: &x.Records[i]}
		switch k, changed := differ[i]; {
		case j >= 0:
			if x.Order == spec.InOrder {
				flush(j)
				next = j + 1
			}
			p.Got = &got[j]
		case changed:
			if x.Order == spec.InOrder {
				flush(k)
				next = max(next, k+1)
			}
			p.Got, p.Why = &got[k], compare(&x.Records[i], &got[k])
		}
		out = append(out, p)
	}
	flush(m)
	return out
}

// longest finds the longest list of pairs that are in order in both.
func longest(equal [][]bool, n, m int) []int {
	of := make([]int, n)
	best := make([][]int32, n+1)
	for i := range best {
		best[i] = make([]int32, m+1)
	}
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			best[i][j] = max(best[i+1][j], best[i][j+1])
			if equal[i][j] {
				best[i][j] = max(best[i][j], best[i+1][j+1]+1)
			}
		}
	}
	i, j := 0, 0
	for i < n {
		switch {
		case j < m && equal[i][j] && best[i][j] == best[i+1][j+1]+1:
			of[i] = j
			i, j = i+1, j+1
		case j < m && best[i][j] == best[i][j+1]:
			j++
		default:
			of[i] = -1
			i++
		}
	}
	return of
}

// assign finds as many pairs as there can be: an expected record that says little may take what another could do with.
func assign(equal [][]bool, n, m int) []int {
	of, by := make([]int, n), make([]int, m)
	for i := range of {
		of[i] = -1
	}
	for j := range by {
		by[j] = -1
	}
	var try func(i int, seen []bool) bool
	try = func(i int, seen []bool) bool {
		for j := range m {
			if !equal[i][j] || seen[j] {
				continue
			}
			seen[j] = true
			if by[j] < 0 || try(by[j], seen) {
				by[j], of[i] = i, j
				return true
			}
		}
		return false
	}
	for i := range n {
		try(i, make([]bool, m))
	}
	return of
}

// alike finds, for each expected record that did not come, the one among those left over that it most likely is.
func alike(x *spec.Expected, got []Output, of []int, taken []bool) map[int]int {
	out := map[int]int{}
	from := 0
	for i, j := range of {
		if j >= 0 {
			from = j + 1
			continue
		}
		lo, hi := 0, len(got)
		if x.Order == spec.InOrder { // between its neighbours that did come
			lo = from
			for _, k := range of[i:] {
				if k >= 0 {
					hi = k
					break
				}
			}
		}
		best, found := 0.0, -1
		for k := lo; k < hi; k++ {
			if taken[k] {
				continue
			}
			if l := likeness(&x.Records[i], &got[k]); l > best {
				best, found = l, k
			}
		}
		if found >= 0 && best >= 0.5 {
			out[i], taken[found] = found, true
			from = max(from, found+1)
		}
	}
	return out
}

// likeness is the share of what is expected of a record that holds for another.
func likeness(want *spec.ExpectedRecord, got *Output) float64 {
	leaves := 0
	for _, b := range [][]byte{want.Value, want.Has, want.Key} {
		if b != nil {
			leaves += countLeaves(parse(b))
		}
	}
	if want.Time != nil {
		leaves++
	}
	leaves += len(want.Headers)
	wrong := 0
	for _, d := range compare(want, got) {
		if d.Want != "" {
			wrong++
		}
	}
	if leaves == 0 {
		return 0
	}
	return float64(leaves-wrong) / float64(leaves)
}

func countLeaves(v value.Value) int {
	if !isObject(v) {
		return 1
	}
	n := 0
	v.Fields(nil, func(_ string, v value.Value) bool { n += countLeaves(v); return true })
	return n
}

// show is a record in one line: its value, and what of key, time and headers is asked for.
func show(val []byte, key, time string, headers map[string]string) string {
	b := bytes.TrimSpace(val)
	line := string(b)
	if _, err := value.Parse(b, nil); err != nil {
		line = "text " + quote(string(val))
	}
	if key != "" {
		line += "  key " + key
	}
	if time != "" {
		line += "  time " + time
	}
	if len(headers) > 0 {
		h, err := json.Marshal(headers) // sorted
		if err == nil {
			line += "  headers " + string(h)
		}
	}
	return line
}
