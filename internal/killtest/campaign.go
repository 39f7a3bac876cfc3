package killtest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// runMax is how long one run may take on a busy machine before it is called hanging.
const runMax = 2 * time.Minute

// Moment says when a run is killed: after a time, or, if that comes first, once the log has grown by so many bytes.
type Moment struct {
	After time.Duration
	Bytes int64 // 0 looks at the time alone
}

func (m Moment) String() string {
	if m.Bytes > 0 {
		return fmt.Sprintf("at %d bytes more of log", m.Bytes)
	}
	return "after " + m.After.String()
}

// Campaign kills a program until it is done, or has been killed often enough; then it lets it come to its end.
type Campaign struct {
	Command func(w *Work) *exec.Cmd // one run until all is done
	Kills   int
	When    func(rng *rand.Rand) Moment
	Killed  func(tb testing.TB) // after each kill, before the next start; may be nil
	Disk    *Disk               // loses, at each kill, what was not fsynced; nil for one that loses nothing
}

// Result is what a campaign came to.
type Result struct {
	Kills int
	Err   error // of a run that ended by itself and not with 0
}

// Run works until the program has ended by itself.
func (c *Campaign) Run(tb testing.TB, w *Work, rng *rand.Rand) Result {
	tb.Helper()
	for r := (Result{}); ; r.Kills++ {
		var m *Moment
		if r.Kills < c.Kills {
			when := c.When(rng)
			m = &when
		}
		command := c.Command
		if c.Disk != nil {
			c.Disk.settle(tb)
			command = c.Disk.over(command)
		}
		killed, err := runOnce(command(w), c.Disk, w, m)
		if !killed {
			r.Err = err
			return r
		}
		if c.Disk != nil {
			c.Disk.cut(tb, rng)
		}
		if c.Killed != nil {
			c.Killed(tb)
		}
	}
}

// runOnce runs a command to its end, or kills it at a moment.
func runOnce(cmd *exec.Cmd, disk *Disk, w *Work, m *Moment) (killed bool, err error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	before := logBytes(w.Dir)
	if err := cmd.Start(); err != nil {
		return false, err
	}
	if disk != nil {
		if err := disk.attach(cmd); err != nil {
			_ = cmd.Process.Kill() // it is ours, and the error says more
			return false, errors.Join(err, cmd.Wait(), errors.New(out.String()))
		}
		defer disk.detach()
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	kill := make(<-chan time.Time)
	var grown <-chan time.Time
	if m != nil {
		kill = time.After(m.After)
		if m.Bytes > 0 {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			grown = tick.C
		}
	}
	hangs := time.After(runMax)
	for {
		select {
		case err := <-ended:
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, tail(out.Bytes()))
			}
			return false, err
		case <-grown:
			if logBytes(w.Dir)-before < m.Bytes {
				continue
			}
		case <-kill:
		case <-hangs:
			_ = cmd.Process.Kill() // it is ours, and the error says more
			<-ended
			return false, fmt.Errorf("it was not done within %v\n%s", runMax, tail(out.Bytes()))
		}
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return false, err
		}
		err := <-ended
		if err == nil {
			return false, nil // it was faster
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() >= 0 {
			return false, fmt.Errorf("%w\n%s", err, tail(out.Bytes()))
		}
		return true, nil
	}
}

func tail(b []byte) []byte { return b[max(0, len(b)-4000):] }

// logBytes is how large the log is.
func logBytes(dataDir string) (n int64) {
	_ = filepath.WalkDir(filepath.Join(dataDir, "wal"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "RESERVE" {
			return nil // it is being made, or gone
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}
