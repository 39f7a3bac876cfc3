package admin

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// metric is one family: its name behind "sidestream_", what it says, and its labels.
type metric struct {
	name string
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) metric {
	return metric{"sidestream_" + name, prometheus.NewDesc("sidestream_"+name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) metric {
	return metric{"sidestream_" + name, prometheus.NewDesc("sidestream_"+name, help, labels, nil), prometheus.GaugeValue}
}

// Collector turns a runtime.Status into metrics when it is scraped. Nothing is counted for it beside what the rooms count.
type Collector struct {
	status func() runtime.Status

	up                                             metric
	in, undone, out, inBytes, outBytes             metric
	late, lateDrop, rejected, epochs, restarts     metric
	busy, idle, held                               metric
	state, waiting, stuck, barrier, commit, kept   metric
	lag                                            metric
	subIn, subBusy, subIdle, subHeld, queued, mark metric
	sent, unsent, stopped                          metric
	written, bytes, oldest, fill, memory           metric
	subLag, unread, lost, losing                   metric
	logBytes, logWritten, frames, syncs, syncTime  metric
	generations, dropped, stalls, sealed, durable  metric
}

// NewCollector returns a Collector of what status returns.
func NewCollector(status func() runtime.Status) *Collector {
	const job, subtask = "job_name", "subtask"
	return &Collector{
		status: status,

		up: gauge("start_time_seconds", "When this process opened its data directory, in Unix time."),

		in:       counter("job_records_in_total", "Records read by a job's sources.", job),
		undone:   counter("job_records_undone_total", "Records of those read that an attempt which failed had not committed: they are read again. They count once the next attempt begins.", job),
		out:      counter("job_records_out_total", "Records given to a job's outputs.", job),
		inBytes:  counter("job_bytes_in_total", "Keys and values of records read outside the bus.", job),
		outBytes: counter("job_bytes_out_total", "Keys and values of records given to a job's outputs.", job),
		late:     counter("job_records_late_total", "Records that came too late for a window: dropped, or given to late_to.", job),
		lateDrop: counter("job_records_late_dropped_total", "Of those, the ones that were dropped.", job),
		rejected: counter("job_records_rejected_total", "Records that on_error took out: skipped, or sent to dead letters.", job),
		epochs:   counter("job_epochs_total", "Epochs sealed.", job),
		restarts: counter("job_restarts_total", "Attempts that failed and were followed by another.", job),
		busy:     counter("job_busy_seconds_total", "Time a job's subtasks were at work, summed.", job),
		idle:     counter("job_idle_seconds_total", "Time they had nothing to do.", job),
		held:     counter("job_held_back_seconds_total", "Time they were held back by what stands behind them.", job),
		state:    gauge("job_state", "1 for the state a job is in.", job, "state"),
		waiting:  gauge("job_waiting", "How many things a job waits for: an outside that is away, another job's watermark.", job),
		stuck:    gauge("job_stuck_subtasks", "Subtasks that have not returned from a job's own code for long.", job),
		barrier:  gauge("job_barrier_age_seconds", "How long the oldest barrier has been under way.", job),
		commit:   gauge("job_last_commit_timestamp_seconds", "When the last epoch was sealed, in Unix time; missing where none was.", job),
		kept:     gauge("job_state_bytes", "Keyed state and timers.", job),
		lag:      gauge("job_bus_lag_records", "Records on the bus that a job has yet to read.", job),

		subIn:   counter("subtask_records_in_total", "Records a subtask has taken in, in this attempt.", job, "task", subtask),
		subBusy: counter("subtask_busy_seconds_total", "Time a subtask was at work, in this attempt.", job, "task", subtask),
		subIdle: counter("subtask_idle_seconds_total", "Time it had nothing to do.", job, "task", subtask),
		subHeld: counter("subtask_held_back_seconds_total", "Time it was held back by what stands behind it.", job, "task", subtask),
		queued:  gauge("subtask_queued_records", "Records waiting before a subtask.", job, "task", subtask),
		mark:    gauge("subtask_watermark_timestamp_seconds", "Its watermark, in Unix time; missing where there is none, or the final one.", job, "task", subtask),

		sent:    counter("output_records_sent_total", "Records an output has sent outside.", job, "output"),
		unsent:  gauge("output_records_unsent", "Records that are yet to be sent.", job, "output"),
		stopped: gauge("output_stopped", "1 where an output waits for a person to decide.", job, "output"),

		written: counter("topic_records_total", "Records ever written to a topic.", "topic", "partition"),
		bytes:   counter("topic_bytes_total", "Bytes of them.", "topic", "partition"),
		oldest:  gauge("topic_oldest_offset", "Offset of the oldest record still there.", "topic", "partition"),
		memory:  gauge("topic_memory_bytes", "What of it lies in memory for live readers.", "topic", "partition"),
		fill:    gauge("topic_fill_ratio", "How much of its limit the slowest subscription has yet to read; at 1 its writers wait, or it drops what is oldest.", "topic"),
		subLag:  gauge("subscription_lag_records", "Records a subscription has yet to read.", job, "topic"),
		unread:  gauge("subscription_unread_bytes", "Bytes of them, counted against the topic's limit.", job, "topic"),
		lost:    counter("subscription_dropped_records_total", "Records that a subscription lost, and went over in a durable epoch, because its topic drops the oldest; over its whole life, crashes and replays included.", job, "topic", "subscription"),
		losing:  gauge("subscription_dropping_records", "Records, at most, that it is to lose so: let go, and yet to be gone over.", job, "topic", "subscription"),

		logBytes:    gauge("log_bytes", "The log on the disk."),
		logWritten:  counter("log_written_bytes_total", "Bytes appended."),
		frames:      counter("log_frames_total", "Frames appended."),
		syncs:       counter("log_fsyncs_total", "Groups of frames made durable."),
		syncTime:    counter("log_fsync_seconds_total", "Time spent in fsync."),
		generations: gauge("log_generations", "Generations that the log consists of."),
		dropped:     counter("log_generations_dropped_total", "Generations deleted."),
		stalls:      counter("log_stalls_total", "Frames that had to wait for room."),
		sealed:      gauge("log_sealed_lsn", "The last LSN given out."),
		durable:     gauge("log_durable_lsn", "The last LSN that any crash leaves in the log."),
	}
}

// all returns every family.
func (c *Collector) all() []metric {
	return []metric{c.up, c.in, c.undone, c.out, c.inBytes, c.outBytes, c.late, c.lateDrop, c.rejected, c.epochs, c.restarts, c.busy, c.idle, c.held, c.state, c.waiting, c.stuck,
		c.barrier, c.commit, c.kept, c.lag, c.subIn, c.subBusy, c.subIdle, c.subHeld, c.queued, c.mark, c.sent, c.unsent, c.stopped,
		c.written, c.bytes, c.oldest, c.fill, c.memory, c.subLag, c.unread, c.lost, c.losing, c.logBytes, c.logWritten, c.frames, c.syncs, c.syncTime,
		c.generations, c.dropped, c.stalls, c.sealed, c.durable}
}

// Names returns the names of all metrics, sorted.
func (c *Collector) Names() []string {
	var names []string
	for _, m := range c.all() {
		names = append(names, m.name)
	}
	slices.Sort(names)
	return names
}

// Describe sends every family.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.all() {
		ch <- m.desc
	}
}

// Collect sends what the status says now.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	st := c.status()
	set := func(m metric, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
	}
	set(c.up, unix(st.Started))
	for _, j := range st.Jobs {
		c.job(set, j)
	}
	for _, t := range st.Topics {
		if !t.Hidden { // an output on its way outside is told as such
			c.topic(set, t)
		}
	}
	l := st.Log
	set(c.logBytes, float64(l.Bytes))
	set(c.logWritten, float64(l.Stats.Bytes))
	set(c.frames, float64(l.Stats.Appends))
	set(c.syncs, float64(l.Stats.Syncs))
	set(c.syncTime, l.Stats.SyncTime.Seconds())
	set(c.generations, float64(l.Generations))
	set(c.dropped, float64(l.Stats.Dropped))
	set(c.stalls, float64(l.Stats.Stalls))
	set(c.sealed, float64(l.Last))
	set(c.durable, float64(l.Durable))
}

type setter func(m metric, v float64, labels ...string)

func (c *Collector) job(set setter, j runtime.JobStatus) {
	n, did := j.Counters, j.Counters.Total() // a counter never goes back
	set(c.in, float64(did.In), j.Name)
	set(c.undone, float64(j.Undone.In), j.Name)
	set(c.out, float64(did.Out), j.Name)
	set(c.inBytes, float64(did.InBytes), j.Name)
	set(c.outBytes, float64(did.OutBytes), j.Name)
	set(c.late, float64(did.Late), j.Name)
	set(c.lateDrop, float64(did.LateDropped), j.Name)
	set(c.rejected, float64(did.Rejected), j.Name)
	set(c.epochs, float64(n.Epochs), j.Name)
	set(c.restarts, float64(j.Restarts), j.Name)
	set(c.busy, n.Busy.Seconds(), j.Name)
	set(c.idle, n.Idle.Seconds(), j.Name)
	set(c.held, n.Held.Seconds(), j.Name)
	set(c.state, 1, j.Name, string(j.State))
	set(c.waiting, float64(len(j.Waiting)), j.Name)
	set(c.stuck, float64(len(j.Stuck)), j.Name)
	set(c.barrier, j.BarrierAge.Seconds(), j.Name)
	if !j.LastCommit.IsZero() {
		set(c.commit, unix(j.LastCommit), j.Name)
	}
	set(c.kept, float64(j.StateBytes), j.Name)
	set(c.lag, float64(j.Lag), j.Name)
	for _, s := range j.Subtasks {
		where := []string{j.Name, s.Task, strconv.Itoa(s.Index)}
		set(c.subIn, float64(s.In), where...)
		set(c.subBusy, s.Busy.Seconds(), where...)
		set(c.subIdle, s.Idle.Seconds(), where...)
		set(c.subHeld, s.Held.Seconds(), where...)
		set(c.queued, float64(s.Queued), where...)
		if s.Watermark != jobs.WatermarkNone && s.Watermark != jobs.WatermarkMax {
			set(c.mark, float64(s.Watermark)/1000, where...)
		}
	}
	for _, o := range j.Outputs {
		set(c.sent, float64(o.Sent), j.Name, o.Name)
		set(c.unsent, float64(o.Unsent), j.Name, o.Name)
		set(c.stopped, boolean(o.Stopped), j.Name, o.Name)
	}
}

func (c *Collector) topic(set setter, t bus.TopicStat) {
	for i, p := range t.Partitions {
		where := []string{t.Name, strconv.Itoa(i)}
		set(c.written, float64(int64(p.Next)-p.Unused), where...)
		set(c.bytes, float64(p.Bytes), where...)
		set(c.oldest, float64(p.First), where...)
		set(c.memory, float64(p.Memory), where...)
	}
	most := int64(0)
	lag, unread := map[string]int64{}, map[string]int64{} // of a job that subscribes twice, together
	for _, s := range t.Subscriptions {
		most = max(most, s.Unread)
		job, _, _ := strings.Cut(s.Name, "/")
		lag[job] += s.Lag
		unread[job] += s.Unread
		if t.OnFull == bus.DropOldest || s.Dropped > 0 {
			set(c.lost, float64(s.Dropped), job, t.Name, s.Name)
			set(c.losing, float64(s.Dropping), job, t.Name, s.Name)
		}
	}
	set(c.fill, float64(most)/float64(max(1, t.Limit)), t.Name)
	for job := range lag {
		set(c.subLag, float64(lag[job]), job, t.Name)
		set(c.unread, float64(unread[job]), job, t.Name)
	}
}

func unix(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
