package wal

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"
)

// Stats are counters since Open.
type Stats struct {
	Appends     uint64        `json:"appends"`
	Bytes       uint64        `json:"bytes"` // appended, as they lie in the segments
	Syncs       uint64        `json:"syncs"` // groups fsynced
	SyncTime    time.Duration `json:"sync_time_ns"`
	WriteTime   time.Duration `json:"write_time_ns"`
	Groups      [20]uint64    `json:"groups"` // groups by frames: Groups[i] had 2^i to 2^(i+1)-1
	Stalls      uint64        `json:"stalls"` // appends refused: ErrNoRoom, ErrBacklog
	Rotations   uint64        `json:"rotations"`
	Dropped     uint64        `json:"dropped"`    // generations
	CutBytes    int64         `json:"cut_bytes"`  // by Open
	CutFrames   int           `json:"cut_frames"` // whole ones, by Open
	ReserveHeld bool          `json:"reserve_held"`
}

type counters struct {
	appends, bytes, syncs, stalls, rotations, dropped atomic.Uint64
	syncNanos, writeNanos                             atomic.Int64
	groups                                            [20]atomic.Uint64
}

func (c *counters) group(frames int) {
	c.syncs.Add(1)
	c.groups[min(bits.Len(uint(frames))-1, len(c.groups)-1)].Add(1)
}

// Stats returns the counters.
func (l *Log) Stats() Stats {
	c := &l.stats
	s := Stats{
		Appends: c.appends.Load(), Bytes: c.bytes.Load(), Syncs: c.syncs.Load(),
		SyncTime: time.Duration(c.syncNanos.Load()), WriteTime: time.Duration(c.writeNanos.Load()),
		Stalls: c.stalls.Load(), Rotations: c.rotations.Load(), Dropped: c.dropped.Load(),
		CutBytes: l.recovered.CutBytes, CutFrames: l.recovered.CutFrames,
	}
	for i := range c.groups {
		s.Groups[i] = c.groups[i].Load()
	}
	l.mu.Lock()
	s.ReserveHeld = l.room.held
	l.mu.Unlock()
	return s
}

// Recovery is what Open found and did.
type Recovery struct {
	New          bool // the directory held no frame
	Last         LSN
	CutAt        LSN           // the first LSN cut off; 0 when nothing was
	CutBytes     int64         // from the first byte that was not the frame due
	CutFrames    int           // whole frames among them
	CutSegments  int           // files removed
	CutBecause   *CorruptError // what was found there
	Generation   LSN           // a generation removed because its catalog was torn; 0 for none
	Dropped      int           // generations whose deletion was finished
	Rewritten    int64         // bytes that no frame calls durable, written again before the fsync
	ScanDuration time.Duration
}

func (r Recovery) String() string {
	if r.New && r.CutBytes == 0 {
		return "new log"
	}
	s := fmt.Sprintf("log ends at LSN %d", r.Last)
	if r.CutAt != 0 {
		s += fmt.Sprintf(", torn tail cut at LSN %d (%d bytes, %d whole frames, %d files removed): %v",
			r.CutAt, r.CutBytes, r.CutFrames, r.CutSegments, r.CutBecause)
	}
	if r.Generation != 0 {
		s += fmt.Sprintf(", unfinished generation %d removed", r.Generation)
	}
	if r.Dropped != 0 {
		s += fmt.Sprintf(", deletion of %d generations finished", r.Dropped)
	}
	return s
}
