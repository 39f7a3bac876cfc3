package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// terminalOf returns the terminal that w is, and whether it is one.
func terminalOf(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}

// sizeOf returns the columns and lines of the terminal that w is; 0 and 0 if it is none, or does not know.
func sizeOf(w io.Writer) (columns, lines int) {
	f, ok := terminalOf(w)
	if !ok {
		return 0, 0
	}
	columns, lines, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return columns, lines
}

// ink is how a word stands out on a terminal.
type ink string

const (
	plainInk ink = ""
	bold     ink = "1"
	dim      ink = "2"
	red      ink = "31"
	green    ink = "32"
	yellow   ink = "33"
)

// paint returns s in ink, which takes no column.
func (i ink) paint(s string) string {
	if i == plainInk || s == "" {
		return s
	}
	return "\x1b[" + string(i) + "m" + s + "\x1b[0m"
}

// inkOf is the ink of a word that says how something stands.
func inkOf(word string) ink {
	switch word {
	case "running", "ok", "yes", "pass", "reached":
		return green
	case "waiting", "restarting", "starting", "stopping", "paused", "probation", "updating", "warn", "skip":
		return yellow
	case "failed", "fail", "missed", "full", "no":
		return red
	case "stopped", "ended", "idle":
		return dim
	}
	return plainInk
}

// colored reports whether what a command writes to w has colours: as --color says, or, if it says auto, on a terminal
// that is not "dumb", unless NO_COLOR is set to anything (no-color.org).
func colored(cmd *cobra.Command, w io.Writer) bool {
	switch text(cmd, "color") {
	case "always":
		return true
	case "never":
		return false
	}
	_, is := terminalOf(w)
	return is && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// gridded lays out cells under heads, two blanks between the columns, and writes them. An empty cell shows as "-".
type gridded struct {
	columns int  // of the terminal: cells are cut so that no line is longer; 0 cuts nothing
	colored bool // heads and words of state stand out
}

// cellMin is as narrow as a column is made, to fit a terminal.
const cellMin = 6

func (g gridded) write(w io.Writer, head []string, rows [][]string) error {
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
	}
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	g.fit(widths)
	var b strings.Builder
	for i, h := range head {
		g.cell(&b, h, widths, i, bold)
	}
	for _, row := range rows {
		for i := range head {
			g.cell(&b, row[i], widths, i, inkOf(row[i]))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// fit takes from the widest columns what the terminal has not.
func (g gridded) fit(widths []int) {
	total := 2 * (len(widths) - 1)
	for _, n := range widths {
		total += n
	}
	for g.columns > 0 && total > g.columns {
		widest := 0
		for i, n := range widths {
			if n > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= cellMin {
			return // a terminal for no table
		}
		widths[widest]--
		total--
	}
}

// cell writes column i, and the line's end behind the last.
func (g gridded) cell(b *strings.Builder, s string, widths []int, i int, in ink) {
	s = cut(s, widths[i])
	blanks := widths[i] - utf8.RuneCountInString(s) + 2
	if g.colored {
		s = in.paint(s)
	}
	b.WriteString(s)
	if i == len(widths)-1 {
		b.WriteByte('\n')
		return
	}
	b.WriteString(strings.Repeat(" ", blanks))
}

// cut returns s, or as much of it as fits n columns, with "…" for the rest.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(0, n-1)]) + "…"
}

// progress shows on stderr how far a long work is: a line that is drawn over, and only on a terminal. Whoever began it calls
// end before anything else is written there.
type progress struct {
	mu      sync.Mutex
	w       io.Writer
	columns int // 0: no terminal, so nothing is shown
	what    string
	drawn   bool
}

// progress begins to show what.
func (a *app) progress(what string) *progress {
	columns, _ := sizeOf(a.stderr)
	if os.Getenv("TERM") == "dumb" {
		columns = 0
	}
	return &progress{w: a.stderr, columns: columns, what: what}
}

// barColumns is the length of the bar itself.
const barColumns = 24

// at shows that done of total is done, and what is said of it.
func (p *progress) at(done, total int64, note string) {
	if p.columns == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	share := 0.0
	if total > 0 {
		share = min(1, float64(done)/float64(total))
	}
	line := fmt.Sprintf("%s [%s] %3.0f%% %s", p.what, bar(share, barColumns), 100*share, note)
	fmt.Fprint(p.w, "\r\x1b[K"+cut(line, p.columns-1))
	p.drawn = true
}

// shown reports whether the progress is drawn anywhere.
func (p *progress) shown() bool { return p.columns > 0 }

// rename says what is shown from now on.
func (p *progress) rename(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what = what
}

// end takes the line away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

// Write writes whole lines where the progress stands, which comes back below them with the next step.
func (p *progress) Write(lines []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	return p.w.Write(lines)
}

func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

// bar returns n columns of which share is full.
func bar(share float64, n int) string {
	full := int(share*float64(n) + 0.5)
	return strings.Repeat("#", full) + strings.Repeat(".", n-full)
}

// sized writes a number of bytes for people: 1.5GiB.
func sized(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%dB", n)
	}
	f, i := float64(n)/(1<<10), 0
	for ; f >= 999.5 && i < len(units)-1; i++ {
		f /= 1 << 10
	}
	if f >= 10 || f == float64(int64(f)) {
		return fmt.Sprintf("%.0f%ciB", f, units[i])
	}
	return fmt.Sprintf("%.1f%ciB", f, units[i])
}
