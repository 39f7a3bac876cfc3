package runtime

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// shortest is how small a generation of the log gets by itself, and a fourth of the least file of the topic store: each begins
// with a catalog, which names all of these files.
const shortest = 256 << 10

const defaultFrameBytes = 1 << 20

// Config tunes a Runtime; only DataDir is needed.
type Config struct {
	DataDir        string        // holds the log, the snapshots and what embedded services keep
	Log            wal.Config    // of the log; its Logger and OnDurable are set here
	CommitInterval time.Duration // of barriers while there is something to commit; 0 means 5 ms
	EpochBytes     int64         // an epoch that has grown so large gets its barrier early; 0 means 64 MiB
	SealedBytes    int64         // no epoch is sealed while more than this is not durable; 0 means 2 × EpochBytes
	FrameBytes     int           // an epoch larger than this is written as parts, and so is a catalog; at most half of Log.FrameBytes; 0 means 1 MiB
	TopicMemory    int64         // of each topic for live readers beyond what is not durable; 0 means 16 MiB
	SnapshotBytes  int64         // a job writes a snapshot after so many bytes of frames, or its state's if that is more; 0 means 64 MiB
	LogBytes       int64         // past this, who pins the log is named and acted on; 0 means 4 GiB. Less than 1 GiB makes generations smaller
	CatchUpPercent int           // of the machine's time, for all jobs that catch up while others are at work; 0 means 12, 100 paces none
	AttemptsMax    int           // attempts in a row that seal nothing before a job is failed; 0 means 10
	BackoffMin     time.Duration // before the second attempt; 0 means 100 ms
	BackoffMax     time.Duration // between later ones; 0 means 30 s
	ConnectTimeout time.Duration // for the outsides of a job that is added or changed to answer; 0 means 10 s
	Probation      time.Duration // a definition that fails so soon after a change is taken back; 0 means 30 s, less than 0 none is
	StopTimeout    time.Duration // for last barriers and senders when stopping; 0 means 30 s
	StuckAfter     time.Duration // a step that has not returned for so long is named; 0 means 5 s
	AllowStateLoss bool          // Start drops state that definitions which have changed since cannot keep; else it refuses them
	DropUnsent     bool          // Start drops what outputs have yet to send that definitions which have changed since give up, or that jobs gave up before; else it refuses these
	Adopt          bool          // Start takes over the API's jobs that it is given definitions of; else it refuses these
	RestartFailed  bool          // Start tries jobs again that have failed for good; else they stay so until RestartJob, a change, or another Program
	Program        string        // names the code that the jobs run, for jobs that failed under other code; "" means a checksum of the executable
	Services       jobs.Services // what the process runs for connectors; nil runs nothing
	Logger         *slog.Logger  // nil logs nothing

	StoreSegmentBytes int64 // of a file of the topic store; 0 means 64 MiB, less where LogBytes is less than 256 MiB

	// Load makes a job again from its definition, as the log has it. Nil loads none: jobs of the API stay stopped then.
	Load func(definition []byte, o Origin) (*jobs.Job, error)

	// OnRead is told while Open reads the log how many of its frames it has read: of how many there are behind the newest
	// catalog. May be nil.
	OnRead func(read, of int64)
}

func (c Config) withDefaults() (Config, error) {
	if c.DataDir == "" {
		return c, fmt.Errorf("runtime: Config.DataDir is needed")
	}
	def(&c.CommitInterval, 5*time.Millisecond)
	def(&c.EpochBytes, 64<<20)
	def(&c.SealedBytes, 2*c.EpochBytes)
	def(&c.Log.PendingBytes, math.MaxInt64) // SealedBytes is the bound, which one epoch alone may pass
	def(&c.FrameBytes, defaultFrameBytes)
	def(&c.TopicMemory, 16<<20)
	def(&c.SnapshotBytes, 64<<20)
	def(&c.LogBytes, 4<<30)
	// Whole generations leave the log, and whole files the topic store: a short log is made of small ones.
	def(&c.Log.GenerationBytes, min(256<<20, max(c.LogBytes/4, shortest, c.Log.SegmentBytes)))
	def(&c.Log.SegmentBytes, min(2<<20, c.Log.GenerationBytes))
	def(&c.StoreSegmentBytes, min(64<<20, max(c.LogBytes/4, 4*shortest)))
	def(&c.CatchUpPercent, 12)
	def(&c.AttemptsMax, 10)
	def(&c.BackoffMin, 100*time.Millisecond)
	def(&c.BackoffMax, 30*time.Second)
	def(&c.ConnectTimeout, 10*time.Second)
	def(&c.Probation, 30*time.Second)
	def(&c.StopTimeout, 30*time.Second)
	def(&c.StuckAfter, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.CommitInterval < 0 || c.EpochBytes < 0 || c.FrameBytes < 0 || c.AttemptsMax < 0:
		return c, fmt.Errorf("runtime: Config: CommitInterval %v, EpochBytes %d, FrameBytes %d and AttemptsMax %d must be positive",
			c.CommitInterval, c.EpochBytes, c.FrameBytes, c.AttemptsMax)
	case c.CatchUpPercent < 0 || c.CatchUpPercent > 100:
		return c, fmt.Errorf("runtime: Config: CatchUpPercent is %d; 1 to 100 are possible", c.CatchUpPercent)
	case c.FrameBytes > cmp.Or(c.Log.FrameBytes, wal.DefaultFrameBytes)/2: // a part is cut before a record that fits
		return c, fmt.Errorf("runtime: Config: FrameBytes %d is more than half of the %d bytes that a frame of the log can have (Log.FrameBytes)",
			c.FrameBytes, cmp.Or(c.Log.FrameBytes, wal.DefaultFrameBytes))
	case c.SealedBytes < c.EpochBytes:
		return c, fmt.Errorf("runtime: Config: SealedBytes %d is less than EpochBytes %d", c.SealedBytes, c.EpochBytes)
	case c.BackoffMax < c.BackoffMin:
		return c, fmt.Errorf("runtime: Config: BackoffMax %v is less than BackoffMin %v", c.BackoffMax, c.BackoffMin)
	}
	return c, nil
}

func def[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}
