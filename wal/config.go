package wal

import (
	"fmt"
	"log/slog"
)

const (
	// DefaultFrameBytes is the largest frame, where Config does not say.
	DefaultFrameBytes = 16 << 20

	maxFrameBytes   = 64 << 20 // what the format allows and a reader accepts, whatever Config.FrameBytes is
	maxSections     = 1 << 20  // likewise
	maxAncestors    = 64       // ids remembered; older ones are forgotten
	maxSegmentBytes = 64 << 20
	maxParts        = 1 << 20 // frames in which a catalog goes on
	catalogShare    = 8       // a generation is at least so many times as long as its catalog
)

// Config tunes a Log; the zero value is a good one.
type Config struct {
	SegmentBytes    int64 // the engine starts a new segment at this size; 0 means 2 MiB
	GenerationBytes int64 // RotateDue reports true from this size on, or more where the catalog is long; 0 means 256 MiB
	FrameBytes      int   // the largest frame, header and table included; 0 means 16 MiB
	SmallBytes      int   // the largest frame of AppendSmall; 0 means 64 KiB
	MaxSections     int   // the most sections in a frame; 0 means 65,536
	PendingBytes    int64 // the most bytes appended and not yet durable; 0 means 512 MiB
	GroupBytes      int64 // one fsync takes no more than this and one frame; 0 means 8 MiB
	ReserveBytes    int64 // space kept for AppendSmall when the disk is full; 0 means two segments, -1 none

	Logger    *slog.Logger // nil logs nothing
	OnDurable func(LSN)    // called by the writer after each fsync, in order; must not block nor call Close

	disk disk // nil means the operating system's; tests put a faulty one here
}

func (c Config) withDefaults() (Config, error) {
	set(&c.SegmentBytes, 2<<20)
	set(&c.GenerationBytes, 256<<20)
	set(&c.FrameBytes, DefaultFrameBytes)
	set(&c.SmallBytes, 64<<10)
	set(&c.MaxSections, 1<<16)
	set(&c.PendingBytes, 512<<20)
	set(&c.GroupBytes, 8<<20)
	set(&c.ReserveBytes, 2*c.SegmentBytes)
	if c.ReserveBytes < 0 {
		c.ReserveBytes = 0
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.disk == nil {
		c.disk = osDisk{}
	}
	switch {
	case c.SegmentBytes < 1 || c.SegmentBytes > maxSegmentBytes:
		return c, fmt.Errorf("wal: SegmentBytes %d is not in 1 to %d", c.SegmentBytes, maxSegmentBytes)
	case c.GenerationBytes < c.SegmentBytes:
		return c, fmt.Errorf("wal: GenerationBytes %d is less than SegmentBytes %d", c.GenerationBytes, c.SegmentBytes)
	case c.FrameBytes < minFrameBytes || c.FrameBytes > maxFrameBytes:
		return c, fmt.Errorf("wal: FrameBytes %d is not in %d to %d", c.FrameBytes, minFrameBytes, maxFrameBytes)
	case c.SmallBytes < 1:
		return c, fmt.Errorf("wal: SmallBytes %d is not positive", c.SmallBytes)
	case c.MaxSections < 1 || c.MaxSections > maxSections:
		return c, fmt.Errorf("wal: MaxSections %d is not in 1 to %d", c.MaxSections, maxSections)
	case c.PendingBytes < int64(c.FrameBytes):
		return c, fmt.Errorf("wal: PendingBytes %d is less than FrameBytes %d", c.PendingBytes, c.FrameBytes)
	case c.GroupBytes < 1:
		return c, fmt.Errorf("wal: GroupBytes %d is not positive", c.GroupBytes)
	}
	return c, nil
}

func set[T int | int64](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}
