package spec

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What is hostile runs in a process of its own, which is ended where it takes too much.

// childEnv names what a child does: a function of children and its argument.
const childEnv = "SIDESTREAM_SPEC_CHILD"

var children = map[string]func(t *testing.T, arg string) string{
	"reference": func(*testing.T, string) string { return fmt.Sprint(hashed(make([]byte, referenceBytes))) },
}

// The reference tells how slow this machine is, or the race detector makes the test: limits of time are taken that much longer.
const (
	referenceBytes = 64 << 20
	referenceCPU   = 130 * time.Millisecond // what it takes, start included, on a machine of the year 2025
)

func hashed(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for i := range b {
		h = (h ^ uint64(b[i])) * 1099511628211
	}
	return h
}

var slowness = sync.OnceValue(func() float64 {
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childEnv+"=reference", "GOMAXPROCS=2")
	if err := cmd.Run(); err != nil {
		panic(err)
	}
	return max(1, float64(cpuOf(cmd.ProcessState))/float64(referenceCPU))
})

func cpuOf(p *os.ProcessState) time.Duration { return p.UserTime() + p.SystemTime() }

// TestChild is what a child runs; by itself it tests nothing.
func TestChild(t *testing.T) {
	what, arg, _ := strings.Cut(os.Getenv(childEnv), " ")
	if what == "" {
		return
	}
	out := children[what](t, arg)
	fmt.Printf("[[%s]]\n", out[:min(len(out), 2000)])
}

// limits is what a child may take.
type limits struct {
	bytes int // of memory, beyond what the test's own process takes
	cpu   time.Duration
}

// outcome is how a child ended.
type outcome struct {
	out    string // what its function gave
	over   string // "memory", "time" or "" where it ended by itself
	failed string // what it said where it came to nothing
	bytes  int    // the most memory it had
	cpu    time.Duration
}

// confined runs a child within limits. Memory is looked at from outside, every few milliseconds: so it works under the race
// detector too, and a child that takes all of it at once is ended before the machine notices.
func confined(t *testing.T, what, arg string, l limits) outcome {
	t.Helper()
	l.cpu = time.Duration(float64(l.cpu) * slowness())
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v=false", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), childEnv+"="+what+" "+arg, "GOTRACEBACK=none", "GOMAXPROCS=2")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	watched := make(chan string, 1)
	go func() { watched <- watch(cmd.Process, done, l) }()
	err := cmd.Wait()
	close(done)
	o := outcome{over: <-watched, cpu: cpuOf(cmd.ProcessState)}
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		o.bytes = int(ru.Maxrss) << 10
	}
	if o.over == "" && o.bytes > l.bytes {
		o.over = "memory"
	}
	if o.over == "" && o.cpu > l.cpu {
		o.over = "time"
	}
	text := out.String()
	if i := strings.Index(text, "[["); i >= 0 && err == nil {
		o.out, _, _ = strings.Cut(text[i+2:], "]]")
	} else if o.over == "" {
		o.failed = fmt.Sprintf("%v: %s", err, text[:min(len(text), 500)])
	}
	return o
}

// watch kills a process that goes beyond l and says in what.
func watch(p *os.Process, done chan struct{}, l limits) string {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return ""
		case <-tick.C:
		}
		over := ""
		switch rss, cpu := usage(p.Pid); {
		case rss > l.bytes:
			over = "memory"
		case cpu > l.cpu:
			over = "time"
		default:
			continue
		}
		_ = p.Kill() // it may have ended just now
		return over
	}
}

// usage reads what a process takes: zero where it has gone.
func usage(pid int) (rss int, cpu time.Duration) {
	statm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if f := strings.Fields(string(statm)); len(f) > 1 {
		pages, _ := strconv.Atoi(f[1])
		rss = pages * os.Getpagesize()
	}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := bytes.LastIndexByte(stat, ')'); i >= 0 {
		if f := strings.Fields(string(stat[i+1:])); len(f) > 12 {
			user, _ := strconv.Atoi(f[11]) // in ticks of 10 ms
			system, _ := strconv.Atoi(f[12])
			cpu = time.Duration(user+system) * 10 * time.Millisecond
		}
	}
	return rss, cpu
}
