package casetest

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// The form of JUnit's XML that the readers of CI systems agree on.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	File    string        `xml:"file,attr"`
	Line    int           `xml:"line,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes results as JUnit's XML, a suite for each file.
func WriteJUnit(w io.Writer, results []*Result) error {
	var all junitSuites
	var total time.Duration
	took := map[string]time.Duration{}
	at := map[string]int{}
	for _, r := range results {
		file := r.Case.File
		if _, known := at[file]; !known {
			at[file] = len(all.Suites)
			all.Suites = append(all.Suites, junitSuite{Name: file})
		}
		s := &all.Suites[at[file]]
		c := junitCase{Name: r.Case.Name, Class: strings.TrimSuffix(strings.TrimSuffix(file, ".yaml"), ".yml"), File: file, Line: r.Case.Line, Time: seconds(r.Took)}
		if !r.Passed() {
			var text bytes.Buffer
			r.Diff(&text, false)
			c.Failure = &junitFailure{Message: r.Summary(), Type: "difference", Text: text.String()}
			s.Failures++
			all.Failures++
		}
		s.Tests++
		all.Tests++
		took[file] += r.Took
		total += r.Took
		s.Time = seconds(took[file])
		s.Cases = append(s.Cases, c)
	}
	all.Time = seconds(total)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }

// Summary says in one line what is not as expected; "" for a case that passed.
func (r *Result) Summary() string {
	var parts []string
	if r.Err != "" {
		parts = append(parts, r.Err)
	}
	for i := range r.Outputs {
		o := &r.Outputs[i]
		missing, extra, differ := 0, 0, 0
		for _, p := range o.pairs {
			switch {
			case p.ok():
			case p.Got == nil:
				missing++
			case p.Want == nil:
				extra++
			default:
				differ++
			}
		}
		var what []string
		for _, n := range []struct {
			n    int
			word string
		}{{missing, "missing"}, {differ, "different"}, {extra, "too many"}} {
			if n.n > 0 {
				what = append(what, fmt.Sprintf("%d %s", n.n, n.word))
			}
		}
		if what != nil {
			parts = append(parts, o.Expected.Name+": "+strings.Join(what, ", "))
		}
	}
	return strings.Join(parts, "; ")
}
