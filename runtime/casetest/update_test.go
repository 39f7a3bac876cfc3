package casetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
)

const passing = "version: 1\njob: u\nsource: {bus: in}\nsteps:\n  - filter: {if: value.n > 2}\noutputs: {main: {stdout: {}}}\n"

// expectations writes a random list of expected records below a name, in one of the ways that people write it.
func expectations(rnd *rand.Rand, pad string) string {
	item := func() string {
		n := rnd.IntN(8)
		return []string{fmt.Sprintf(`value: {n: %d, s: "it's }], # no"}`, n), fmt.Sprintf("has: {n: %d}", n), fmt.Sprintf("value: {s: 'it''s', n: %d}", n),
			fmt.Sprintf("has: {s: it's, n: %d}", n), fmt.Sprintf("key: k%d", n)}[rnd.IntN(5)]
	}
	var block, flow []string
	in := pad + strings.Repeat(" ", rnd.IntN(2)*2) // a list may stand as far left as its name
	for range rnd.IntN(5) {
		i := item()
		flow = append(flow, "{"+i+"}")
		if rnd.IntN(3) == 0 {
			block = append(block, in+"# above", "")
		}
		if rnd.IntN(4) == 0 {
			i += " # beside"
		}
		block = append(block, in+"- "+i)
	}
	brackets := "[" + strings.Join(flow, ", ") + "]"
	if len(flow) > 1 && rnd.IntN(2) == 0 {
		brackets = "[ # first\n" + pad + "    " + strings.Join(flow, ",\n"+pad+"    ") + "\n" + pad + "  ]"
	}
	if len(flow) == 0 || rnd.IntN(3) == 0 {
		return " " + []string{brackets, "{contains: " + brackets + "}", brackets + " # behind"}[rnd.IntN(3)] + "\n"
	}
	if in != pad && rnd.IntN(3) == 0 {
		return "\n" + pad + "  any_order:\n" + strings.Join(block, "\n") + "\n"
	}
	return " # of it\n" + strings.Join(block, "\n") + "\n"
}

// TestUpdates writes random expectations, updates them, and wants them to pass then, with all that stands around them as
// it was. CASE_SEEDS and CASE_SEED as in TestAsTheRuntime.
func TestUpdates(t *testing.T) {
	seeds, first := 200, uint64(1)
	if s := os.Getenv("CASE_SEEDS"); s != "" {
		seeds, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("CASE_SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
		seeds = 1
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "u.test.yaml")
	write := func(name, src string) {
		if err := os.WriteFile(name, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "u.yaml"), passing)
	updated := 0
	for seed := first; seed < first+uint64(seeds); seed++ {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var b strings.Builder
		b.WriteString("# head\nversion: 1\ncases:\n")
		for c := range 1 + rnd.IntN(3) {
			fmt.Fprintf(&b, "  - name: c%d # keep\n    input:\n", c)
			for range 1 + rnd.IntN(5) {
				n := rnd.IntN(8)
				fmt.Fprintf(&b, "      - {value: {n: %d, s: \"it's }], # no\"}, key: k%d}\n", n, n)
			}
			b.WriteString("    output:\n      main:" + expectations(rnd, "      ") + "    # between\n    end: true\n")
		}
		b.WriteString("# foot\n")
		src := b.String()
		load := func(src string) []*spec.Case {
			write(name, src)
			cases, problems := spec.LoadCases(spec.Config{Connectors: all.Registry()}, name)
			if len(problems) > 0 {
				t.Fatalf("seed %d: %v\n%s\nof\n%s", seed, problems[0], src, b.String())
			}
			return cases
		}
		var updates []spec.Update
		for _, c := range load(src) {
			updates = append(updates, Run(c).Updates()...)
		}
		if len(updates) == 0 {
			continue
		}
		updated++
		now, err := spec.Updated(updates)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range load(string(now)) {
			if d := diffOf(t, c); d != "" {
				t.Fatalf("seed %d: %s\n%s\nof\n%s", seed, d, now, src)
			}
		}
		for _, word := range []string{"# head", "# keep", "# between", "# foot", "end: true", "- {value: "} {
			if was, is := strings.Count(src, word), strings.Count(string(now), word); is < was {
				t.Fatalf("seed %d: %q is there %d times, it was %d times:\n%s\nof\n%s", seed, word, is, was, now, src)
			}
		}
	}
	if updated < seeds/2 && seeds > 1 {
		t.Errorf("only %d of %d had something to update", updated, seeds)
	}
}
