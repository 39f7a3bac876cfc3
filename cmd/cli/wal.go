package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

func (a *app) walCommands() *cobra.Command {
	c := group("wal", "Look into the log, or repair it", "The log is read where it is, without its lock, also while a process writes it; repair alone takes the lock, and changes it if told to.")
	c.AddCommand(a.walInfo(), a.walVerify(), a.walDump(), a.walRepair())
	return c
}

// logDir returns the directory of the log that a command is about.
func logDir(cmd *cobra.Command) string { return filepath.Join(text(cmd, "data-dir"), "wal") }

// ofLog gives an error of reading a log its exit code.
func (a *app) ofLog(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return withCode(exitUnreachable, fmt.Errorf("there is no log in %s; name the data directory with --data-dir", dir))
	case damaged(err):
		return withCode(exitData, a.mend(err, dir))
	}
	return err
}

// generation is one of the log's, as it is shown.
type generation struct {
	First wal.LSN `json:"first"`
	Last  wal.LSN `json:"last"`
	Bytes int64   `json:"bytes"`
}

func generations(gs []wal.Generation) []generation {
	out := []generation{}
	for _, g := range gs {
		out = append(out, generation{g.First, g.Last, g.Bytes})
	}
	return out
}

// logInfo is what info says.
type logInfo struct {
	ID          string       `json:"id"`
	Last        wal.LSN      `json:"last"`
	Catalog     wal.LSN      `json:"catalog"` // of the newest generation
	Bytes       int64        `json:"bytes"`
	Generations []generation `json:"generations"`
	TornBytes   int64        `json:"torn_bytes,omitempty"` // that the next run will cut off
	Torn        string       `json:"torn,omitempty"`
}

func (a *app) walInfo() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "info",
		Short: "Say what the log holds, from its newest generation alone",
		Long: `Info says the log's id, its newest frame, its generations and their sizes, and whether its tail is torn, as a crash leaves it.
It reads little, whatever the log's length; 'wal verify' reads it all.`,
		Example: `  sidestream wal info
  sidestream wal info --data-dir sidestream-data -o json`,
		Args: noArgs,
	},
		func(cmd *cobra.Command, _ []string) error {
			d, err := wal.Info(logDir(cmd))
			if err != nil {
				return a.ofLog(text(cmd, "data-dir"), err)
			}
			i := logInfo{ID: d.ID.String(), Last: d.Last, Catalog: d.Catalog, Generations: generations(d.Generations), TornBytes: d.TornBytes}
			for _, g := range d.Generations {
				i.Bytes += g.Bytes
			}
			if d.Torn != nil {
				i.Torn = d.Torn.Error()
			}
			return showOne(a, cmd, view[logInfo]{
				head: []string{"ID", "LAST", "CATALOG", "GENERATIONS", "BYTES", "TORN BYTES"},
				row: func(i logInfo) []string {
					return []string{i.ID, i.Last.String(), i.Catalog.String(), fmt.Sprint(len(i.Generations)), fmt.Sprint(i.Bytes), fmt.Sprint(i.TornBytes)}
				},
				name: func(i logInfo) string { return i.ID },
			}, i)
		})
	take(c, "data-dir")
	prints(c)
	return c
}

// logReport is what verify says.
type logReport struct {
	ID          string       `json:"id"`
	OK          bool         `json:"ok"` // nothing that was acknowledged is damaged
	Frames      int          `json:"frames"`
	Sections    int          `json:"sections"`
	Bytes       int64        `json:"bytes"`
	Last        wal.LSN      `json:"last"`
	Generations []generation `json:"generations"`
	Damage      []damage     `json:"damage"`
	TornBytes   int64        `json:"torn_bytes,omitempty"`
	Torn        string       `json:"torn,omitempty"`
}

// damage is one stretch of damaged frames.
type damage struct {
	Segment string  `json:"segment"`
	Offset  int64   `json:"offset"`
	First   wal.LSN `json:"first"`
	Last    wal.LSN `json:"last,omitempty"` // missing where it is unknown
	Reason  string  `json:"reason"`
}

func (a *app) walVerify() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "verify",
		Short: "Read and check every frame; exit code 65 where acknowledged data is damaged",
		Long: `Verify reads every frame of the log and checks its checksum. A torn tail, as a crash leaves it, is no damage: the next run
cuts it off. Nothing is changed, and the log may be in use.`,
		Example: `  sidestream wal verify && echo sound`,
		Args:    noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		rep, err := wal.Verify(logDir(cmd))
		if err != nil {
			return a.ofLog(text(cmd, "data-dir"), err)
		}
		r := logReport{ID: rep.ID.String(), OK: rep.OK(), Frames: rep.Frames, Sections: rep.Sections, Bytes: rep.Bytes, Last: rep.Last,
			Generations: generations(rep.Generations), Damage: []damage{}, TornBytes: rep.TornBytes}
		for _, d := range rep.Damage {
			r.Damage = append(r.Damage, damage{d.Segment, d.Offset, d.First, d.Last, d.Err.Error()})
		}
		if rep.Torn != nil {
			r.Torn = rep.Torn.Error()
			a.say("the tail is torn, which the next run cuts off (%d bytes): %s", rep.TornBytes, r.Torn)
		}
		for _, d := range rep.Damage {
			a.say("%s", d.Error())
		}
		err = showOne(a, cmd, view[logReport]{
			head: []string{"ID", "OK", "FRAMES", "SECTIONS", "BYTES", "LAST", "GENERATIONS", "DAMAGED", "TORN BYTES"},
			row: func(r logReport) []string {
				return []string{r.ID, strconv.FormatBool(r.OK), fmt.Sprint(r.Frames), fmt.Sprint(r.Sections), fmt.Sprint(r.Bytes), r.Last.String(),
					fmt.Sprint(len(r.Generations)), fmt.Sprint(len(r.Damage)), fmt.Sprint(r.TornBytes)}
			},
			name: func(r logReport) string { return r.ID },
		}, r)
		if err == nil && !r.OK {
			n := len(r.Damage)
			err = withCode(exitData, fmt.Errorf("the log is damaged in %d %s", n, plural(n, "place", "places")))
		}
		return err
	})
	take(c, "data-dir")
	prints(c)
	return c
}

// frameInfo is one frame of the log, as it is shown.
type frameInfo struct {
	LSN      wal.LSN       `json:"lsn"`
	Kind     string        `json:"kind"`
	Durable  wal.LSN       `json:"durable"` // what was durable when it was written
	Bytes    int           `json:"bytes"`
	Segment  string        `json:"segment"`
	Offset   int64         `json:"offset"`
	Sections []sectionInfo `json:"sections"`
}

type sectionInfo struct {
	Kind  string `json:"kind"`
	Owner uint32 `json:"owner"` // the job's or the topic's id
	Bytes int    `json:"bytes"`
}

func (f frameInfo) summary() string {
	counts := map[string]int{}
	var order []string
	for _, s := range f.Sections {
		if counts[s.Kind] == 0 {
			order = append(order, s.Kind)
		}
		counts[s.Kind]++
	}
	var b bytes.Buffer
	for i, k := range order {
		if i > 0 {
			b.WriteString(" ")
		}
		b.WriteString(k)
		if counts[k] > 1 {
			fmt.Fprintf(&b, "×%d", counts[k])
		}
	}
	return b.String()
}

func (a *app) walDump() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "dump",
		Short: "List the frames of the log and their sections, without their contents",
		Long: `Dump lists frame by frame what the log holds: the kind, the size, the place, and the sections with their owners (the number of a
job or a topic). Contents, which may be secret, are not shown.`,
		Example: `  sidestream wal dump --to 3
  sidestream wal dump --from 2 --to 2 -o yaml`,
		Args: noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		from, _ := cmd.Flags().GetUint64("from")
		to, _ := cmd.Flags().GetUint64("to")
		v := view[frameInfo]{
			head: []string{"LSN", "KIND", "BYTES", "SEGMENT", "OFFSET", "SECTIONS"},
			row: func(f frameInfo) []string {
				return []string{f.LSN.String(), f.Kind, fmt.Sprint(f.Bytes), f.Segment, fmt.Sprint(f.Offset), f.summary()}
			},
			name: func(f frameInfo) string { return f.LSN.String() },
		}
		out := newPrinter(a, cmd, v)
		err := wal.Dump(logDir(cmd), wal.LSN(from), wal.LSN(to), func(f *wal.Frame) error {
			i := frameInfo{LSN: f.LSN, Kind: runtime.KindName(f.Kind), Durable: f.Durable, Bytes: f.Bytes, Segment: f.Segment, Offset: f.Offset, Sections: []sectionInfo{}}
			for k := range f.Len() {
				s := f.Section(k)
				i.Sections = append(i.Sections, sectionInfo{runtime.SectionName(s.Kind), s.Owner, s.Len})
			}
			return out.add(i)
		})
		if err == nil || out.n > 0 {
			err = errors.Join(err, out.end())
		}
		if errors.Is(err, wal.ErrGone) {
			return withCode(exitFailed, fmt.Errorf("frame %d was dropped: what it held is no longer needed", from))
		}
		return a.ofLog(text(cmd, "data-dir"), err)
	})
	c.Flags().Uint64("from", 0, "the first LSN; 0 is the oldest")
	c.Flags().Uint64("to", 0, "the last LSN; 0 is the newest")
	take(c, "data-dir")
	prints(c)
	return c
}
