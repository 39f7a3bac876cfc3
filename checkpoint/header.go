package checkpoint

import (
	"cmp"
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/wal"
)

// Header is what an epoch says besides changed entries and records. Its lists hold what changed since the epoch before,
// each entry whole; Merge folds them.
type Header struct {
	Job     uint32
	Attempt uint32
	Epoch   Epoch
	Ended   bool // the job has ended with this epoch
	Splits  []SplitState
	Subs    []SubPosition
	Steps   []StepState
	Parts   []wal.LSN         // of the epoch's frames before its last, in order
	Extra   map[string][]byte // what a later version adds; in Merge an empty value removes the name
}

// SplitState is how far a source has read one split.
type SplitState struct {
	Step      string // the source's id
	Split     string // the split's id
	Topic     string
	Partition int32
	Position  []byte // opaque to all but the source; nil is the beginning
	Watermark int64
	Idle      bool
	Ended     bool
}

// SubPosition is how far a subscription has read one partition, in the bus's own encoding.
type SubPosition struct {
	Sub       uint32
	Partition int
	State     []byte
}

// StepState is the watermark of one step.
type StepState struct {
	Step      string
	Watermark int64
}

func compareSplits(a, b SplitState) int {
	return cmp.Or(strings.Compare(a.Step, b.Step), strings.Compare(a.Split, b.Split))
}

func compareSubs(a, b SubPosition) int {
	return cmp.Or(cmp.Compare(a.Sub, b.Sub), cmp.Compare(a.Partition, b.Partition))
}

func compareSteps(a, b StepState) int { return strings.Compare(a.Step, b.Step) }

// Merge folds the header of the next epoch into into, which then says where the job is at that epoch: Job, Attempt, Epoch
// and Ended are h's, lists are kept sorted, Parts, which belong to one epoch's frames alone, are left out. Slices of h's
// entries are shared.
func Merge(into *Header, h Header) {
	into.Job, into.Attempt, into.Epoch, into.Ended, into.Parts = h.Job, h.Attempt, h.Epoch, h.Ended, nil
	into.Splits = upsert(into.Splits, h.Splits, compareSplits)
	into.Subs = upsert(into.Subs, h.Subs, compareSubs)
	into.Steps = upsert(into.Steps, h.Steps, compareSteps)
	for name, v := range h.Extra {
		switch {
		case len(v) == 0:
			delete(into.Extra, name)
		case into.Extra == nil:
			into.Extra = map[string][]byte{name: v}
		default:
			into.Extra[name] = v
		}
	}
}

// upsert puts each of add into list, in the place of the one equal to it by compare.
func upsert[E any](list, add []E, compare func(a, b E) int) []E {
	if len(add) == 0 {
		return list
	}
	if !slices.IsSortedFunc(list, compare) {
		list = upsert(nil, list, compare)
	}
	for _, e := range add {
		if i, found := slices.BinarySearchFunc(list, e, compare); found {
			list[i] = e
		} else {
			list = slices.Insert(list, i, e)
		}
	}
	return list
}

const (
	headerVersion = 1
	headerEnded   = 0x01

	markNone = 0x01 // the watermark is the lowest number: none was given
	markMax  = 0x02 // the watermark is the highest number: the end
	sameStep = 0x04 // as in the split before
	sameName = 0x08 // the topic is the split's id
	isIdle   = 0x10
	isEnded  = 0x20
)

// AppendHeader encodes h behind b. Watermarks are written as the difference to the last one that was a time.
//
//	+---------+-------+-------+-----------+---------+--------+------+-------+-------+-------+
//	| version | flags | job u | attempt u | epoch u | splits | subs | steps | parts | extra |   each list: u count, items
//	+---------+-------+-------+-----------+---------+--------+------+-------+-------+-------+
//	split  flags, [step string], split string, [topic string], z partition, position optional, [z watermark]
//	sub    u sub, z partition, state optional
//	step   flags, step string, [z watermark]
//	part   u difference to the part before
//	extra  name string, value string; names ascending
func AppendHeader(b []byte, h Header) []byte {
	b = append(b, headerVersion, bitIf(h.Ended, headerEnded))
	b = binary.AppendUvarint(b, uint64(h.Job))
	b = binary.AppendUvarint(b, uint64(h.Attempt))
	b = binary.AppendUvarint(b, uint64(h.Epoch))
	var last int64
	b = binary.AppendUvarint(b, uint64(len(h.Splits)))
	for i, s := range h.Splits {
		same := i > 0 && h.Splits[i-1].Step == s.Step
		flags := markFlags(s.Watermark) | bitIf(s.Idle, isIdle) | bitIf(s.Ended, isEnded) |
			bitIf(same, sameStep) | bitIf(s.Topic == s.Split, sameName)
		b = append(b, flags)
		if !same {
			b = appendString(b, s.Step)
		}
		b = appendString(b, s.Split)
		if s.Topic != s.Split {
			b = appendString(b, s.Topic)
		}
		b = binary.AppendUvarint(b, zigzag(int64(s.Partition)))
		b = appendOptional(b, s.Position)
		b = appendMark(b, s.Watermark, &last)
	}
	b = binary.AppendUvarint(b, uint64(len(h.Subs)))
	for _, s := range h.Subs {
		b = binary.AppendUvarint(b, uint64(s.Sub))
		b = binary.AppendUvarint(b, zigzag(int64(s.Partition)))
		b = appendOptional(b, s.State)
	}
	b = binary.AppendUvarint(b, uint64(len(h.Steps)))
	for _, s := range h.Steps {
		b = appendString(append(b, markFlags(s.Watermark)), s.Step)
		b = appendMark(b, s.Watermark, &last)
	}
	b = binary.AppendUvarint(b, uint64(len(h.Parts)))
	part := wal.LSN(0)
	for _, lsn := range h.Parts {
		b = binary.AppendUvarint(b, uint64(lsn-part))
		part = lsn
	}
	b = binary.AppendUvarint(b, uint64(len(h.Extra)))
	for _, name := range slices.Sorted(maps.Keys(h.Extra)) {
		b = appendString(appendString(b, name), h.Extra[name])
	}
	return b
}

// DecodeHeader decodes what AppendHeader made; nothing in it shares memory with b. The error is a *DecodeError.
func DecodeHeader(b []byte) (Header, error) {
	d := &decoder{b: b}
	var h Header
	if d.byte() != headerVersion {
		d.fail(errVersion)
	}
	flags := d.flags(headerEnded)
	h.Ended = flags != 0
	h.Job, h.Attempt, h.Epoch = d.uint32(), d.uint32(), Epoch(d.uvarint())
	var last int64
	h.Splits = decodeSplits(d, &last)
	if n := d.count(3); n > 0 {
		h.Subs = make([]SubPosition, 0, n)
		for ; n > 0 && d.err == nil; n-- {
			h.Subs = append(h.Subs, SubPosition{Sub: d.uint32(), Partition: int(d.varint()), State: d.optional()})
		}
	}
	if n := d.count(2); n > 0 {
		h.Steps = make([]StepState, 0, n)
		for ; n > 0 && d.err == nil; n-- {
			flags := d.flags(markNone | markMax)
			step := string(d.bytes())
			h.Steps = append(h.Steps, StepState{Step: step, Watermark: d.mark(flags, &last)})
		}
	}
	if n := d.count(1); n > 0 {
		h.Parts = make([]wal.LSN, n)
		part := wal.LSN(0)
		for i := range h.Parts {
			part += wal.LSN(d.uvarint())
			h.Parts[i] = part
		}
	}
	decodeExtra(d, &h)
	if err := d.result("header"); err != nil {
		return Header{}, err
	}
	return h, nil
}

func decodeSplits(d *decoder, last *int64) []SplitState {
	n := d.count(4)
	if n == 0 {
		return nil
	}
	splits := make([]SplitState, 0, min(n, 1024)) // one takes 96 bytes, and its encoding may take four
	for ; n > 0 && d.err == nil; n-- {
		flags := d.flags(markNone | markMax | sameStep | sameName | isIdle | isEnded)
		s := SplitState{Idle: flags&isIdle != 0, Ended: flags&isEnded != 0}
		if flags&sameStep == 0 {
			s.Step = string(d.bytes())
		} else if len(splits) == 0 {
			d.fail(errFlags)
			break
		} else {
			s.Step = splits[len(splits)-1].Step
		}
		if flags&sameStep == 0 && len(splits) > 0 && s.Step == splits[len(splits)-1].Step {
			d.fail(errFlags)
		}
		s.Split = string(d.bytes())
		if flags&sameName != 0 {
			s.Topic = s.Split
		} else if s.Topic = string(d.bytes()); s.Topic == s.Split {
			d.fail(errFlags)
		}
		partition := d.varint()
		if s.Partition = int32(partition); int64(s.Partition) != partition {
			d.fail(errRange)
		}
		s.Position = d.optional()
		s.Watermark = d.mark(flags, last)
		splits = append(splits, s)
	}
	return splits
}

func decodeExtra(d *decoder, h *Header) {
	n := d.count(2)
	for before := ""; n > 0 && d.err == nil; n-- {
		name := string(d.bytes())
		value := slices.Clone(d.bytes())
		if len(h.Extra) > 0 && name <= before {
			d.fail(errOrder)
			return
		}
		if h.Extra == nil {
			h.Extra = map[string][]byte{}
		}
		h.Extra[name], before = value, name
	}
}

func bitIf(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

func markFlags(mark int64) byte {
	return bitIf(mark == math.MinInt64, markNone) | bitIf(mark == math.MaxInt64, markMax)
}

func appendMark(b []byte, mark int64, last *int64) []byte {
	if markFlags(mark) != 0 {
		return b
	}
	b = binary.AppendUvarint(b, zigzag(mark-*last))
	*last = mark
	return b
}

func (d *decoder) flags(known byte) byte {
	flags := d.byte()
	if flags&^known != 0 {
		d.fail(errFlags)
	}
	return flags
}

func (d *decoder) mark(flags byte, last *int64) int64 {
	switch flags & (markNone | markMax) {
	case markNone:
		return math.MinInt64
	case markMax:
		return math.MaxInt64
	case markNone | markMax:
		d.fail(errFlags)
		return 0
	}
	*last += d.varint()
	if d.err == nil && markFlags(*last) != 0 {
		d.fail(errRange)
	}
	return *last
}
