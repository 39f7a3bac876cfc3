package cli

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
)

func (a *app) busGet() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "get TOPIC",
		Short: "Show a topic: what it keeps, its partitions, and who reads it",
		Long: `Get shows one topic: what it keeps and what it does when a reader falls behind, how each partition stands, and each of its readers with
what it has yet to read and what it lost. It asks the process, and where none runs on the data directory it reads that, as 'bus list' does.`,
		Example: `  sidestream bus get ticks
  sidestream bus get ticks -o yaml`,
		Args: one("a topic", "bus list"),
	}, func(cmd *cobra.Command, args []string) error {
		ts, err := a.topics(cmd)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(ts, func(t bus.TopicStat) bool { return t.Name == args[0] })
		if i < 0 {
			var names []string
			for _, t := range ts {
				if !t.Hidden {
					names = append(names, t.Name)
				}
			}
			return reached(meant(fmt.Errorf("topic %q: %w", args[0], runtime.ErrNoTopic), args[0], names))
		}
		return a.showTopic(cmd, ts[i])
	})
	c.ValidArgsFunction = a.completeWith(topicNames, 1)
	take(c, "data-dir", "socket", "context")
	prints(c)
	return c
}

// showTopic shows a topic: as tables what it is, its partitions and its readers.
func (a *app) showTopic(cmd *cobra.Command, t bus.TopicStat) error {
	if err := showOne(a, cmd, topicView, t); err != nil || text(cmd, "output") != "table" {
		return err
	}
	var parts [][]string
	for i, p := range t.Partitions {
		parts = append(parts, []string{strconv.Itoa(i), p.First.String(), p.Next.String(), fmt.Sprint(p.Records), fmt.Sprint(p.KeptBytes)})
	}
	var readers [][]string
	for _, s := range t.Subscriptions {
		readers = append(readers, []string{s.Name, fmt.Sprint(s.Lag), fmt.Sprint(s.Unread), fmt.Sprint(s.Dropped), fmt.Sprint(s.Dropping)})
	}
	columns, _ := sizeOf(a.stdout)
	grid := gridded{columns, colored(cmd, a.stdout)}
	for _, table := range []struct {
		head []string
		rows [][]string
	}{
		{[]string{"PARTITION", "OLDEST", "NEXT", "RECORDS", "BYTES"}, parts},
		{[]string{"READER", "LAG", "UNREAD", "DROPPED", "DROPPING"}, readers},
	} {
		if table.rows == nil {
			continue
		}
		_, err := fmt.Fprintln(a.stdout)
		if err == nil {
			err = grid.write(a.stdout, table.head, table.rows)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var topicView = view[bus.TopicStat]{
	head: []string{"TOPIC", "RECORDS", "WRITERS", "LIMIT", "ON-FULL", "MAX-BYTES", "MAX-AGE", "FULL"},
	row: func(t bus.TopicStat) []string {
		records, keeps, age, full := int64(0), fmt.Sprint(t.Retention), "-", "-"
		for _, p := range t.Partitions {
			records += p.Records
		}
		switch t.Retention {
		case 0:
			keeps = "nothing"
		case math.MaxInt64: // by age alone
			keeps = "-"
		}
		if t.MaxAge > 0 {
			age = t.MaxAge.Round(time.Millisecond).String()
		}
		if t.Full {
			full = "yes"
		}
		return []string{t.Name, fmt.Sprint(records), fmt.Sprint(len(t.Producers)), fmt.Sprint(t.Limit), string(t.OnFull), keeps, age, full}
	},
	name: func(t bus.TopicStat) string { return t.Name },
}
