package cli

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// TestLoadOf: rates are differences over time; what is new counts from nothing, what was started again from its start.
func TestLoadOf(t *testing.T) {
	began := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	was := look{began.Add(time.Minute), runtime.Status{Started: began,
		Jobs:   []runtime.JobStatus{{Name: "a", ID: 1, Counters: runtime.JobCounters{Work: runtime.Work{In: 100, Out: 50}, Busy: time.Second, Idle: time.Second}}},
		Topics: []bus.TopicStat{{Name: "t", Limit: 1000, Partitions: []bus.PartitionStat{{Next: 10, Bytes: 100}}}, {Name: "a/main", Hidden: true}},
		Log:    runtime.LogStatus{Stats: wal.Stats{Bytes: 1000, Syncs: 10, SyncTime: time.Second}}}}
	is := look{was.at.Add(2 * time.Second), runtime.Status{Started: began,
		Jobs: []runtime.JobStatus{
			{Name: "a", ID: 1, Lag: 7, Counters: runtime.JobCounters{Work: runtime.Work{In: 300, Out: 60}, Busy: 2 * time.Second, Idle: 3 * time.Second, Held: time.Second}},
			{Name: "b", ID: 2, Counters: runtime.JobCounters{Work: runtime.Work{In: 20}}}},
		Topics: []bus.TopicStat{{Name: "t", Limit: 1000, Partitions: []bus.PartitionStat{{Next: 30, Bytes: 300}},
			Subscriptions: []bus.SubStat{{Name: "x/bus", Lag: 1}, {Name: "a/bus", Lag: 5, Unread: 250}}}},
		Log: runtime.LogStatus{Stats: wal.Stats{Bytes: 3000, Syncs: 20, SyncTime: 1500 * time.Millisecond}}}}
	l := loadOf("s", was, is)
	if len(l.Jobs) != 2 || len(l.Topics) != 1 {
		t.Fatalf("%+v", l)
	}
	a, b, topic := l.Jobs[0], l.Jobs[1], l.Topics[0]
	if a.In != 100 || a.Out != 5 || a.Busy != 0.25 || a.Idle != 0.5 || a.Held != 0.25 || a.Lag != 7 {
		t.Errorf("a: %+v", a)
	}
	if b.In != 10 || b.Busy != 0 {
		t.Errorf("b, which is new: %+v", b)
	}
	if topic.In != 10 || topic.Bytes != 100 || topic.Reader != "a/bus" || topic.Full != 0.25 {
		t.Errorf("%+v", topic)
	}
	if l.Log.Bytes != 1000 || l.Log.Syncs != 5 || l.Log.SyncNanos != 50e6 {
		t.Errorf("%+v", l.Log)
	}
	if got := spent(a, 16); got != "####====........" {
		t.Errorf("its time is drawn %q", got)
	}
	is.st.Started = is.at.Add(-time.Second) // it was started again
	if got := loadOf("s", was, is).Jobs[0].In; got != 300 {
		t.Errorf("after a start a second ago: %v records a second, want 300", got)
	}
}

func TestSortLoad(t *testing.T) {
	names := func(by byte, reverse bool) string {
		l := load{Jobs: []jobLoad{{Name: "b", In: 5, State: "running"}, {Name: "a", In: 5, State: "waiting", Lag: 2}, {Name: "c", In: 9, State: "failed", Busy: 0.5}}}
		sortLoad(l, by, reverse)
		out := ""
		for _, j := range l.Jobs {
			out += j.Name
		}
		return out
	}
	for _, tt := range []struct {
		by      byte
		reverse bool
		want    string
	}{{'n', false, "abc"}, {'n', true, "cba"}, {'i', false, "cab"}, {'l', false, "abc"}, {'b', false, "cab"}, {'s', false, "cba"}, {'i', true, "bac"}} {
		if got := names(tt.by, tt.reverse); got != tt.want {
			t.Errorf("by %c, reversed %v: %s, want %s", tt.by, tt.reverse, got, tt.want)
		}
	}
}

// teletype is a program on a terminal of its own.
type teletype struct {
	t       *testing.T
	c       *exec.Cmd
	outside *os.File
	inside  *os.File
	ended   chan error

	mu   sync.Mutex
	text strings.Builder
}

func onTerminal(t *testing.T, columns, lines uint16, args ...string) *teletype {
	t.Helper()
	outside, inside, err := pty.Open()
	if err != nil {
		cannot(t, "there is no pseudo-terminal here: "+err.Error())
	}
	tt := &teletype{t: t, c: exec.Command("sidestream", args...), outside: outside, inside: inside, ended: make(chan error, 1)}
	tt.size(columns, lines)
	tt.c.Stdin, tt.c.Stdout, tt.c.Stderr = inside, inside, inside
	tt.c.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=")
	tt.c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := tt.c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := outside.Read(buf)
			tt.mu.Lock()
			tt.text.Write(buf[:n])
			tt.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() { tt.ended <- tt.c.Wait() }()
	t.Cleanup(func() { _ = tt.c.Process.Kill(); _ = inside.Close(); _ = outside.Close() })
	return tt
}

func (tt *teletype) size(columns, lines uint16) {
	if err := pty.Setsize(tt.inside, &pty.Winsize{Cols: columns, Rows: lines}); err != nil {
		tt.t.Fatal(err)
	}
}

func (tt *teletype) shown() string {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	return tt.text.String()
}

// waits until all of what is wanted has been shown behind the byte from, and returns where it stands now.
func (tt *teletype) waits(from int, wanted ...string) int {
	tt.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		all, missing := tt.shown(), ""
		for _, w := range wanted {
			if !strings.Contains(all[from:], w) {
				missing = w
			}
		}
		if missing == "" {
			return len(all)
		}
		if time.Now().After(end) {
			tt.t.Fatalf("%q is not shown; the last is\n%q", missing, all[max(from, len(all)-3000):])
		}
	}
}

func (tt *teletype) types(keys string) {
	if _, err := tt.outside.WriteString(keys); err != nil {
		tt.t.Fatal(err)
	}
}

func (tt *teletype) modes() unix.Termios {
	m, err := unix.IoctlGetTermios(int(tt.inside.Fd()), unix.TCGETS)
	if err != nil {
		tt.t.Fatal(err)
	}
	return *m
}

// TestTopGivesTheTerminalBack, whatever ends it: its modes are those of before, the cursor and the page of the shell are back.
func TestTopGivesTheTerminalBack(t *testing.T) {
	serving(t)
	sends := func(sig syscall.Signal) func(tt *teletype) {
		return func(tt *teletype) { _ = tt.c.Process.Signal(sig) }
	}
	ends := []struct {
		name string
		do   func(tt *teletype)
	}{
		{"q", func(tt *teletype) { tt.types("q") }},
		{"Ctrl-C", func(tt *teletype) { tt.types("\x03") }},
		{"SIGINT", sends(syscall.SIGINT)},
		{"SIGTERM", sends(syscall.SIGTERM)},
		{"SIGHUP", sends(syscall.SIGHUP)},
		{"SIGQUIT", sends(syscall.SIGQUIT)},
	}
	for _, e := range ends {
		t.Run(e.name, func(t *testing.T) {
			tt := onTerminal(t, 120, 30, "top", "--interval", "50ms")
			before := tt.modes() // it may be raw already; the sane one is checked below
			before.Lflag |= unix.ICANON | unix.ECHO | unix.ISIG
			tt.waits(0, enterScreen, "BUS LAG")
			if raw := tt.modes(); raw.Lflag&(unix.ICANON|unix.ECHO) != 0 {
				t.Fatal("while it runs, the terminal is not in the mode that this test wants to be undone")
			}
			e.do(tt)
			select {
			case err := <-tt.ended:
				if err != nil {
					t.Errorf("it ends with %v", err)
				}
			case <-time.After(patience):
				t.Fatal("it does not end")
			}
			tt.waits(0, leaveScreen)
			if after := tt.modes(); after.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != before.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) || after.Oflag&unix.OPOST == 0 {
				t.Errorf("the terminal's modes are %+v", after)
			}
			if all := tt.shown(); !strings.HasSuffix(all, leaveScreen) {
				t.Errorf("the last it writes is %q", all[max(0, len(all)-100):])
			}
		})
	}
}

// TestTopLive: rates, keys, another size of the terminal, a process that goes away and comes back.
func TestTopLive(t *testing.T) {
	inFolderOfJobs(t)
	stop := serveUntil(t, "jobs/")
	tt := onTerminal(t, 120, 30, "top", "--interval", "50ms")
	tt.waits(0, "sidestream-data/run/admin.sock, up ", "2 jobs: 2 running\x1b", "JOB", "TIME", "TOPIC", "by name   n s i o l b h: sort")
	at := tt.waits(0, "......") // how the time is spent: idle, most of it
	tt.types("i")
	at = tt.waits(at, "by in   ")
	tt.types("i")
	at = tt.waits(at, "by in, reversed   ")
	tt.types("x\x1b[A ") // what is no key does nothing
	at = tt.waits(at, "held still")
	tt.types(" n")
	at = tt.waits(at, "by name   ")

	// A smaller terminal: no line is longer, and there are no more than it has.
	tt.size(60, 8)
	tt.waits(at, "…")
	at = len(tt.shown())
	tt.waits(at, "\x1b[8;1H")
	tt.waits(at, "\x1b[H") // a picture from its beginning
	begin := at + strings.Index(tt.shown()[at:], "\x1b[H")
	tt.waits(begin+3, "\x1b[H")
	picture := tt.shown()[begin+3:]
	picture, _, _ = strings.Cut(picture, "\x1b[H")
	lines := strings.Split(picture, "\r\n")
	if len(lines) > 8 {
		t.Errorf("%d lines on a terminal of 8:\n%s", len(lines), picture)
	}
	for _, line := range lines {
		if n := utf8.RuneCountInString(plainText(line)); n > 60 {
			t.Errorf("%d columns on a terminal of 60: %q", n, line)
		}
	}

	tt.size(120, 30)
	stop()
	at = tt.waits(len(tt.shown()), "no answer since ")
	serveJobs(t, "jobs/")
	at = tt.waits(at, "sidestream-data/run/admin.sock, up ")
	tt.waits(at, "\x1b[Hsidestream-data/run/admin.sock, up ") // the first line is no complaint any more
	tt.types("q")
	if err := <-tt.ended; err != nil {
		t.Error(err)
	}
}

// plainText takes every escape sequence away.
func plainText(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		s = strings.TrimLeft(rest, "0123456789;?")
		if s != "" {
			s = s[1:]
		}
	}
}
