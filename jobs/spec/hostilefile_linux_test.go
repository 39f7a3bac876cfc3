package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// A file of definitions is refused within these, beyond what a process takes that loads a small one.
const (
	fileBytes = 64 << 20
	fileCPU   = 100 * time.Millisecond
)

// hostileFile is an attack on the loader.
type hostileFile struct {
	name string
	src  func() string
	want string // in one of the problems
}

func hostileFiles() []hostileFile {
	times := func(n int, s string) func() string { return func() string { return strings.Repeat(s, n) } }
	job := func(source, rest string) func() string { return func() string { return small(source, rest) } }
	const main = "outputs: {main: {stdout: {}}}\n"
	steps := func(s func() string) func() string {
		return func() string { return small(okSource, "steps:\n"+s()+main) }
	}
	quoted := func(n int, s string) func() string {
		return func() string { return "  - map: '" + strings.Repeat(s, n) + "'\n" }
	}
	long := func(n int) string { return strings.Repeat("a", n) }
	return []hostileFile{
		{"a bomb of aliases", bomb, "anchors and aliases are not allowed"},
		{"a bomb of merges", func() string {
			s := "a0: &a0 {x: 1}\n"
			for i := range 700 {
				s += fmt.Sprintf("a%d: &a%d {<<: [*a%d, *a%d]}\n", i+1, i+1, i, i)
			}
			return s
		}, "anchors and aliases are not allowed"},
		{"keys in a large file", times(15_000, "tokens  "), "want fields, not"},
		{"an alias of itself", times(1, "a: &a [*a]\n"), "anchors and aliases are not allowed"},
		{"many anchors", times(3000, "- &a x\n"), "anchors and aliases are not allowed"},
		{"deep brackets", times(100_000, "["), "more than 10000 lines, fields and elements"},
		{"brackets as many as may be", times(9_900, "["), "not YAML"},
		{"braces as many as may be", times(4_900, "{a: "), "not YAML"},
		{"deep brackets that end", func() string { return "a: " + strings.Repeat("[", 4_900) + strings.Repeat("]", 4_900) }, "nested deeper than 24"},
		{"brackets just too deep", func() string { return "a: " + strings.Repeat("[", 40) + strings.Repeat("]", 40) }, "nested deeper than 24"},
		{"deep blocks", func() string {
			var b strings.Builder
			for i := range 450 {
				b.WriteString(strings.Repeat(" ", i) + "a:\n")
			}
			return b.String()
		}, "nested deeper than 24"},
		{"deep lists in one line", times(9_900, "- "), "nested deeper than 24"},
		{"question marks", times(50_000, "? "), "more than 10000 lines"},
		{"commas", func() string { return "[" + strings.Repeat(",", 100_000) + "]" }, "more than 10000 lines"},
		{"elements as many as may be", func() string { return "[" + strings.Repeat("a,", 9_900) + "]" }, "want fields, not a list"},
		{"unknown fields as many as may be", func() string {
			var b strings.Builder
			for i := range 4_900 {
				fmt.Fprintf(&b, "verson%d: 1\n", i)
			}
			return b.String()
		}, "has no field verson0"},
		{"one field as often as may be", times(4_900, "job: a\n"), "job is given twice"},
		{"steps as many as may be", steps(times(3_300, "  - a: b\n")), "more than 256"},
		{"mistakes in one long line", func() string {
			return small(okSource, "steps: ["+strings.Repeat("{filter: {if: valeu}}, ", 250)+"]\n"+main)
		}, "there is no"},
		{"documents", times(1_600, "---\na: 1\n"), "has no field a"},
		{"a large file", times(4<<20/5, "a: b\n"), "more than 131072 bytes"},
		{"a huge word", job("  "+long(120_000)+": x\n", main), "has no field"},
		{"a huge name", func() string { return "version: 1\njob: " + long(120_000) + "\nsource: {bus: t}\n" + main }, "want 1 to 128 letters"},
		{"a huge string", job("  file: {path: x, format: "+long(120_000)+"}\n", main), "is not one of jsonl"},
		{"a huge number", job(okSource, "parallelism: "+strings.Repeat("9", 120_000)+"\n"+main), "want a whole number from 1 to 128"},
		{"a huge exponent", job(okSource, "parallelism: 1e999999999\n"+main), "want a whole number from 1 to 128"},
		{"a huge version", func() string { return "version: 0x" + strings.Repeat("f", 120_000) + "\njob: a\n" }, "version: want 1"},
		{"a huge duration", job(okSource+"  event_time: {from: value.t, idle_after: "+strings.Repeat("99999h", 20_000)+"}\n", main), "want a duration"},
		{"a huge size", job(okSource, "topics: {t: {limit: "+strings.Repeat("9_", 60_000)+"KiB}}\n"+main), "want a size"},
		{"a huge reference", job("  kafka: {topics: [t], brokers: [b], group: \""+strings.Repeat("${", 9_000)+"\"}\n", main), "is not a reference"},
		{"many references", job("  kafka: {topics: [t], brokers: [b], group: \""+strings.Repeat("${x}", 4_500)+"\"}\n", main), "is not a reference"},
		{"what is nearly a secret", job("  kafka: {topics: [t], brokers: [b], group: \""+strings.Repeat("://a", 9_000)+"\"}\n", "x: 1\n"+main), "has no field x"},
		{"a path in a job's name", func() string { return "version: 1\njob: ../../../etc/passwd\nsource: {bus: t}\n" + main }, "want 1 to 128 letters"},
		{"a path in a topic's name", job("  bus: /etc/passwd\n", main), "want 1 to 128 letters"},
		{"a path in a step's name", steps(times(1, "  - {map: value, id: ../../x}\n")), "want 1 to 128 letters"},
		{"a path in an output's name", job(okSource, "outputs: {../../x: {stdout: {}}}\n"), "want 1 to 128 letters"},
		{"a path in a name, by a default", job("  bus: \"${env:KAFKA_NONE:-../x}\"\n", main), "want 1 to 128 letters"},
		{"an expression without end", steps(quoted(120_000, "(")), "longer than 4096 bytes"},
		{"an expression without end, short", steps(quoted(4_000, "(")), "ends too early"},
		{"expressions without end", steps(func() string { return strings.Repeat("  - map: '"+strings.Repeat("(", 4_000)+"'\n", 30) }), "this expression is not checked"},
		{"operators without end", steps(quoted(1_000, "1 + ")), "more than 1024 parts"},
		{"a string without end", steps(func() string { return "  - map: '\"" + long(4_000) + "'\n" }), "the string is not closed"},
		{"steps that double what is known", func() string {
			return small(okSource, "steps:\n  - map: {a: value.x}\n"+strings.Repeat("  - map: {a: value, b: value}\n", 200)+"  - filter: {if: value.a.a.c}\n"+main)
		}, "there is no field c"},
	}
}

// bomb is lists of lists of aliases: nine to the tenth elements.
func bomb() string {
	s := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		alias := fmt.Sprintf("*%c,", 'a'+i)
		s += fmt.Sprintf("%c: &%c [%s]\n", 'b'+i, 'b'+i, strings.TrimSuffix(strings.Repeat(alias, 9), ","))
	}
	return s
}

func init() {
	children["file"] = func(_ *testing.T, name string) string {
		i := slices.IndexFunc(hostileFiles(), func(h hostileFile) bool { return h.name == name })
		h := hostileFiles()[i]
		src := []byte(h.src())
		before := ownCPU()
		js, problems := LoadBytes(testConfig(), "f", src)
		took := ownCPU() - before
		found := "other words: "
		for _, p := range problems {
			if strings.Contains(p.Msg, h.want) && js == nil {
				found = "refused: "
			}
		}
		if len(problems) == 0 || len(problems) > maxProblems || len(problems[0].String()) > 4000 {
			return fmt.Sprintf("%d %d problems", took, len(problems))
		}
		return fmt.Sprintf("%d %s%.200s", took, found, problems[0].Msg)
	}
	children["small-file"] = func(t *testing.T, _ string) string {
		mustLoad(t, small(okSource, "outputs: {main: {stdout: {}}}\n"))
		return "0 "
	}
	children["bare-file"] = func(_ *testing.T, _ string) string {
		before := ownCPU()
		var n yaml.Node
		err := yaml.Unmarshal([]byte("["+strings.Repeat("a,", 400_000)+"]"), &n)
		return fmt.Sprintf("%d %v", ownCPU()-before, err)
	}
}

func ownCPU() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		panic(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// underRace reports whether this is the race detector's build, which takes several times the memory.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// fileOutcome is what loading took beyond a small file: CPU as the child itself measured it, memory of its whole life.
func fileOutcome(t *testing.T, what, arg string) (o outcome, took time.Duration) {
	t.Helper()
	o = confined(t, what, arg, limits{bytes: 4 << 30, cpu: time.Minute})
	n := int64(0)
	if _, err := fmt.Sscanf(o.out, "%d", &n); err != nil {
		t.Fatalf("%s %s: %q, %s, over %s", what, arg, o.out, o.failed, o.over)
	}
	return o, time.Duration(n)
}

// TestHostileFiles: what could blow the loader up is refused within 100 ms of CPU and 64 MiB.
func TestHostileFiles(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		return
	}
	plain, _ := fileOutcome(t, "small-file", "")
	bytes, cpu := plain.bytes+fileBytes, time.Duration(float64(fileCPU)*slowness())
	if underRace() {
		bytes = plain.bytes + 6*fileBytes // of the detector's shadow
	}
	within := func(o outcome, took time.Duration) bool { return o.bytes <= bytes && took <= cpu }
	for _, h := range hostileFiles() {
		t.Run(h.name, func(t *testing.T) {
			o, took := fileOutcome(t, "file", h.name)
			for range 2 { // a busy machine may make one of them slow
				if !within(o, took) {
					o, took = fileOutcome(t, "file", h.name)
				}
			}
			if !within(o, took) || !strings.Contains(o.out, " refused: ") {
				t.Errorf("%d MiB and %v of CPU, want at most %d MiB and %v; got %q, want %q", o.bytes>>20, took, bytes>>20, cpu, o.out, h.want)
			}
			t.Logf("%d MiB, %v: %.100s", (o.bytes-plain.bytes)>>20, took, o.out)
		})
	}
	t.Run("the twin, without limits before parsing", func(t *testing.T) {
		if o, took := fileOutcome(t, "bare-file", ""); within(o, took) {
			t.Errorf("it holds, with %d MiB and %v: the limits show nothing", o.bytes>>20, took)
		}
	})
}

// TestFileWithoutEnd: a file that has no size and no end is read as far as says that it is too large.
func TestFileWithoutEnd(t *testing.T) {
	name := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.Symlink("/dev/zero", name); err != nil {
		t.Fatal(err)
	}
	if _, problems := Load(testConfig(), name); len(problems) != 1 || !strings.Contains(problems[0].Msg, "has more than") {
		t.Errorf("%v", problems)
	}
}
