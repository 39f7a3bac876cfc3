package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
)

// report is what status says.
type report struct {
	Server   string        `json:"server"`
	Started  time.Time     `json:"started"`
	Status   string        `json:"status"` // ok, warn or fail: the worst of the findings
	Jobs     []jobReport   `json:"jobs"`
	Topics   []topicReport `json:"topics"`
	Log      logState      `json:"log"`
	Findings []finding     `json:"findings"` // who waits for whom and why, and what to do
}

type jobReport struct {
	Name        string              `json:"name"`
	State       string              `json:"state"`
	Since       time.Time           `json:"since"`
	In          int64               `json:"in"` // records since the process began; what an attempt that failed has to read again counts once
	Out         int64               `json:"out"`
	Undone      int64               `json:"undone"` // of those read: by attempts that failed, and read again
	Rejected    int64               `json:"rejected"`
	Late        int64               `json:"late"`         // to a window
	LateDropped int64               `json:"late_dropped"` // of those: the window has no late_to
	Lag         int64               `json:"lag"`          // records on the bus that it has yet to read
	Unsent      int64               `json:"unsent"`
	Restarts    int                 `json:"restarts"`
	StateBytes  int64               `json:"state_bytes"`
	LastCommit  time.Time           `json:"last_commit,omitzero"`
	Waiting     []runtime.Wait      `json:"waiting,omitempty"`
	RolledBack  *runtime.RolledBack `json:"rolled_back,omitempty"`
	Error       string              `json:"error,omitempty"`
}

type topicReport struct {
	Name    string   `json:"name"`
	Records int64    `json:"records"` // still there
	Bytes   int64    `json:"bytes"`   // of those
	Full    bool     `json:"full"`
	Readers []string `json:"readers,omitempty"`
	Lag     int64    `json:"lag"`    // of the slowest, in records
	Unread  int64    `json:"unread"` // by the slowest, in bytes counted against the limit
	Limit   int64    `json:"limit"`

	written, writtenBytes int64 // ever
}

type logState struct {
	ID          string           `json:"id"`
	Last        uint64           `json:"last"`
	Durable     uint64           `json:"durable"`
	Bytes       int64            `json:"bytes"`
	Max         int64            `json:"max_bytes"`
	Generations int              `json:"generations"`
	Pins        []runtime.LogPin `json:"pins,omitempty"` // who keeps it, where it is longer than that
}

// reportOf puts together what status says of a process.
func (a *app) reportOf(server string, st runtime.Status) report {
	r := report{Server: server, Started: st.Started, Jobs: []jobReport{}, Topics: []topicReport{}, Findings: []finding{},
		Log: logState{st.Log.ID, uint64(st.Log.Last), uint64(st.Log.Durable), st.Log.Bytes, st.Log.Max, st.Log.Generations, st.Log.Pins}}
	for _, j := range st.Jobs {
		jr := jobReport{Name: j.Name, State: string(j.State), Since: j.Since, In: j.Counters.In, Out: j.Counters.Out, Undone: j.Counters.Undone.In, Rejected: j.Counters.Rejected, Late: j.Counters.Late, LateDropped: j.Counters.LateDropped,
			Lag: j.Lag, Restarts: j.Restarts, StateBytes: j.StateBytes, LastCommit: j.LastCommit, Waiting: j.Waiting, RolledBack: j.RolledBack, Error: j.Error}
		for _, o := range j.Outputs {
			jr.Unsent += o.Unsent
		}
		r.Jobs = append(r.Jobs, jr)
	}
	for _, t := range st.Topics {
		if !t.Hidden {
			r.Topics = append(r.Topics, topicOf(t))
		}
	}
	r.Findings = append(r.Findings, a.diagnose(st)...)
	r.Status = worst(r.Findings)
	return r
}

func topicOf(t bus.TopicStat) topicReport {
	r := topicReport{Name: t.Name, Full: t.Full, Limit: t.Limit}
	for _, p := range t.Partitions {
		r.Records += p.Records
		r.Bytes += p.KeptBytes
		r.written += int64(p.Next) - p.Unused
		r.writtenBytes += p.Bytes
	}
	for _, s := range t.Subscriptions {
		r.Readers = append(r.Readers, s.Name)
		r.Lag, r.Unread = max(r.Lag, s.Lag), max(r.Unread, s.Unread)
	}
	return r
}

func (a *app) status() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "status",
		Short: "Show on one screen how everything stands, who waits for whom, and what to do",
		Long: `Status asks the process and shows its jobs, the topics, the log, and below them whatever keeps a job from being at work: who
waits for whom and why, with the next command to type. IN, OUT and REJECTED count records since the process began; what an attempt
that failed has to read again counts once. 'top' shows the same live, 'doctor' looks at the machine too.`,
		Example: `  sidestream status
  sidestream status -o json`,
		Args: noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		at, err := a.site(cmd)
		if err != nil {
			return err
		}
		client, err := at.client()
		if err != nil {
			return err
		}
		client.StartWait = starting(cmd)
		st, err := client.Status(cmd.Context())
		if err != nil {
			return reached(err)
		}
		r := a.reportOf(at.String(), st)
		if text(cmd, "output") == "table" {
			return a.statusScreen(cmd, r)
		}
		return showOne(a, cmd, view[report]{name: func(r report) string { return r.Status }}, r)
	})
	take(c, "data-dir", "socket", "context")
	prints(c)
	return c
}

// statusScreen prints a report for people.
func (a *app) statusScreen(cmd *cobra.Command, r report) error {
	columns, _ := sizeOf(a.stdout)
	grid := gridded{columns, colored(cmd, a.stdout)}
	now := time.Now()
	var b strings.Builder
	fmt.Fprintf(&b, "%s, up %s; log %s in %d %s, durable up to %d\n\n", r.Server, brief(now.Sub(r.Started)), sized(r.Log.Bytes), r.Log.Generations,
		plural(r.Log.Generations, "generation", "generations"), r.Log.Durable)
	var rows [][]string
	for _, j := range r.Jobs {
		rows = append(rows, []string{j.Name, j.State, brief(now.Sub(j.Since)), fmt.Sprint(j.In), fmt.Sprint(j.Out), fmt.Sprint(j.Rejected), fmt.Sprint(j.Lag),
			fmt.Sprint(j.Unsent), sized(j.StateBytes), ago(now, j.LastCommit)})
	}
	if err := grid.write(&b, []string{"JOB", "STATE", "FOR", "IN", "OUT", "REJECTED", "BUS LAG", "UNSENT", "KEPT", "LAST COMMIT"}, rows); err != nil {
		return err
	}
	if rows = nil; len(r.Topics) > 0 {
		for _, t := range r.Topics {
			fill := ""
			if t.Limit > 0 && len(t.Readers) > 0 {
				fill = fmt.Sprintf("%.0f%%", 100*float64(t.Unread)/float64(t.Limit))
			}
			if t.Full {
				fill = "full"
			}
			rows = append(rows, []string{t.Name, fmt.Sprint(t.Records), sized(t.Bytes), fmt.Sprint(t.Lag), fill, strings.Join(t.Readers, ",")})
		}
		b.WriteByte('\n')
		if err := grid.write(&b, []string{"TOPIC", "RECORDS", "BYTES", "LAG", "LIMIT", "READERS"}, rows); err != nil {
			return err
		}
	}
	b.WriteByte('\n')
	if len(r.Findings) == 0 {
		b.WriteString("Nothing waits.\n")
	}
	writeFindings(&b, r.Findings, grid.colored)
	_, err := io.WriteString(a.stdout, b.String())
	return err
}

// writeFindings writes findings for people: a line each, and what to do below it.
func writeFindings(b *strings.Builder, fs []finding, colored bool) {
	checks := 0
	for _, f := range fs {
		checks = max(checks, len(f.Check))
	}
	for _, f := range fs {
		status := fmt.Sprintf("%-4s", f.Status)
		if colored {
			status = inkOf(f.Status).paint(status)
		}
		fmt.Fprintf(b, "%s  %-*s  %s\n", status, checks, f.Check, f.What)
		if f.Do != "" {
			fmt.Fprintf(b, "%*s  do: %s\n", 6+checks, "", f.Do)
		}
	}
}

// brief writes a duration for people, in its two largest units: 3d4h, 2m10s, 1.5s.
func brief(d time.Duration) string {
	switch d = max(0, d); {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d >= time.Second:
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return d.Round(time.Millisecond).String()
}
