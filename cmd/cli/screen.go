package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"
)

// fullScreen is a terminal that is drawn on as a whole, without echo, line by line editing and scrolling back, until close gives it
// back as it was.
type fullScreen struct {
	out  *os.File
	keys chan byte // what is typed; nil where stdin is no terminal
	back func() error
}

// What a terminal is told: another page than the one the shell writes on, without a cursor; and back again.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

// openScreen takes the terminal over.
func openScreen(out *os.File) (*fullScreen, error) {
	s := &fullScreen{out: out, back: func() error { return nil }}
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
		old, err := term.MakeRaw(in)
		if err != nil {
			return nil, err
		}
		s.back = func() error { return term.Restore(in, old) }
		s.keys = make(chan byte)
		go func() { // it ends with the process: nothing makes a read of a terminal return
			var key [1]byte
			for {
				if n, err := os.Stdin.Read(key[:]); err != nil || n == 0 {
					return
				}
				s.keys <- key[0]
			}
		}()
	}
	if _, err := io.WriteString(out, enterScreen); err != nil {
		return nil, errors.Join(err, s.back())
	}
	return s, nil
}

// close gives the terminal back as it was. It is safe to call it again.
func (s *fullScreen) close() error {
	if s.back == nil {
		return nil
	}
	_, err := io.WriteString(s.out, leaveScreen)
	err = errors.Join(err, s.back())
	s.back = nil
	return err
}

// draw shows lines, and foot in the last one; what the terminal has no room for is cut.
func (s *fullScreen) draw(lines []string, foot string, foots ink) error {
	columns, height := sizeOf(s.out)
	if columns < 1 || height < 2 {
		return nil
	}
	if len(lines) > height-1 {
		lines = append(lines[:height-2:height-2], "…")
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for _, line := range lines {
		b.WriteString(line + "\x1b[K\r\n")
	}
	b.WriteString("\x1b[J")
	fmt.Fprintf(&b, "\x1b[%d;1H%s", height, foots.paint(cut(foot, columns)))
	_, err := io.WriteString(s.out, b.String())
	return err
}

// live draws top on the terminal until it is told to end, by a key or by ctx.
func (t *topView) live(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGQUIT) // the terminal is given back whatever ends it
	defer stop()
	was, err := t.look(ctx)
	if err != nil {
		return reached(err)
	}
	out, _ := terminalOf(t.stdout)
	s, err := openScreen(out)
	if err != nil {
		return err
	}
	err = t.loop(ctx, s, was)
	return errors.Join(err, s.close())
}

// looked is what a look has come to.
type looked struct {
	look
	err error
}

func (t *topView) loop(ctx context.Context, s *fullScreen, now look) (err error) {
	defer func() { // a bug of ours is told on the page of the shell
		if v := recover(); v != nil {
			_ = s.close()
			panic(v)
		}
	}()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	answers, asked := make(chan looked, 1), false // keys are heard while an answer is waited for
	l, away, still := loadOf(t.server, now, now), error(nil), false
	for changed := true; ; {
		if changed {
			if err := t.draw(s, l, now, away, still); err != nil {
				return err
			}
		}
		changed = true
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case key := <-s.keys:
			if key == 'q' || key == 'Q' || key == 3 || key == 4 { // Ctrl-C, Ctrl-D
				return nil
			}
			t.press(key, &still)
		case <-tick.C:
			if changed = false; !still && !asked {
				asked = true
				asking.Go(func() {
					is, err := t.look(ctx)
					answers <- looked{is, err}
				})
			}
		case is := <-answers:
			asked = false
			if away = is.err; away == nil {
				l = loadOf(t.server, now, is.look)
				now = is.look
			}
		}
	}
}

// draw shows a load; away is why the process does not answer any more.
func (t *topView) draw(s *fullScreen, l load, now look, away error, still bool) error {
	columns, _ := sizeOf(s.out)
	grid, alarm, foots := gridded{columns, colored(t.cmd, s.out)}, plainInk, plainInk
	if grid.colored {
		alarm, foots = red, dim
	}
	sortLoad(l, t.sort, t.reverse)
	lines := fitted(t.picture(l, now.st, grid), columns)
	if away != nil {
		lines = append([]string{alarm.paint(cut("no answer since "+now.at.Format(time.TimeOnly)+": "+away.Error(), columns)), ""}, lines...)
	}
	return s.draw(lines, t.foot(still), foots)
}

// press does what a key asks for.
func (t *topView) press(key byte, still *bool) {
	if key == ' ' {
		*still = !*still
	}
	if _, is := orders[key]; is {
		t.reverse = key == t.sort && !t.reverse
		t.sort = key
	}
}

// foot says what holds, and the keys.
func (t *topView) foot(still bool) string {
	how := "by " + orders[t.sort].name
	if t.reverse {
		how += ", reversed"
	}
	if still {
		how += ", held still"
	}
	return how + "   n s i o l b h: sort   space: hold still   q: quit"
}

// fitted cuts lines that are no table to the terminal. Colours take no column: a line with some is left as it is when what one
// sees of it fits.
func fitted(lines []string, columns int) []string {
	out := slices.Clone(lines)
	for i, line := range out {
		if bare := uncolored(line); len([]rune(bare)) > columns {
			out[i] = cut(bare, columns)
		}
	}
	return out
}

// uncolored takes the colours away.
func uncolored(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		_, s, _ = strings.Cut(rest, "m")
	}
}

func sortedStates(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }
