package checkpoint

import "strconv"

// Epoch numbers the stretches between two barriers of one job, from 1. 0 is none.
type Epoch uint64

func (e Epoch) String() string { return strconv.FormatUint(uint64(e), 10) }

// The kinds of this package's sections in a frame of the log. Their owner is the job's id.
const (
	SectionHeader uint8 = 0x20 // a Header
	SectionState  uint8 = 0x21 // a piece: what one subtask changed; one section for each that changed something
)

// KeyGroups is the number of key groups of a data directory.
const KeyGroups = 128
