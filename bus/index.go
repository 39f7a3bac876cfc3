package bus

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sidestream-dev/sidestream/wal"
)

const (
	indexVersion = 1
	stateVersion = 1

	markIdle  = 1
	markJoin  = 2
	markLeave = 4
	markHas   = 8
)

var errIndex = errors.New("bus: an index is cut short")

// AppendIndex appends the body of a SectionIndex: what an epoch's last frame publishes.
func AppendIndex(dst []byte, pubs []Publication, marks []Mark) []byte {
	dst = append(dst, indexVersion)
	dst = binary.AppendUvarint(dst, uint64(len(pubs)))
	for i := range pubs {
		p := &pubs[i]
		bytes := p.Bytes
		if p.Data != nil {
			bytes = int64(len(p.Data))
		}
		for _, v := range [...]uint64{uint64(p.Topic), uint64(p.Partition), uint64(p.Count), uint64(p.Base), uint64(bytes), uint64(p.Part), uint64(p.Section)} {
			dst = binary.AppendUvarint(dst, v)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(marks)))
	for _, m := range marks {
		flags := bit(m.Idle, markIdle) | bit(m.Join, markJoin) | bit(m.Leave, markLeave) | bit(m.Watermark != NoWatermark, markHas)
		dst = binary.AppendUvarint(dst, uint64(m.Topic))
		dst = binary.AppendUvarint(dst, uint64(m.Producer))
		dst = append(dst, flags)
		if flags&markHas != 0 {
			dst = binary.AppendVarint(dst, m.Watermark)
		}
	}
	return dst
}

func bit(on bool, b byte) byte {
	if on {
		return b
	}
	return 0
}

// DecodeIndex reads what AppendIndex wrote. Data and Payload of the publications are nil.
func DecodeIndex(body []byte) ([]Publication, []Mark, error) {
	d := decoder{b: body}
	if d.byte() != indexVersion && d.err == nil {
		return nil, nil, fmt.Errorf("bus: an index of version %d is not known", body[0])
	}
	n := d.count(7)
	var pubs []Publication
	for range n {
		p := Publication{Topic: TopicID(d.uvarint32()), Partition: int(d.uvarint32()), Count: int(d.uvarint32()), Base: Offset(d.uvarint()),
			Bytes: int64(d.uvarint() & (1<<62 - 1)), Part: wal.LSN(d.uvarint()), Section: int(d.uvarint32())}
		pubs = append(pubs, p)
	}
	n = d.count(3)
	var marks []Mark
	for range n {
		m := Mark{Topic: TopicID(d.uvarint32()), Producer: ProducerID(d.uvarint32()), Watermark: NoWatermark}
		flags := d.byte()
		m.Idle, m.Join, m.Leave = flags&markIdle != 0, flags&markJoin != 0, flags&markLeave != 0
		if flags&^(markIdle|markJoin|markLeave|markHas) != 0 {
			d.err = errIndex
		}
		if flags&markHas != 0 {
			m.Watermark = d.varint()
		}
		marks = append(marks, m)
	}
	return pubs, marks, d.end()
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.err = errIndex
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uvarint32() uint32 {
	v := d.uvarint()
	if v > 1<<31 {
		d.err = errIndex
	}
	return uint32(v)
}

// count reads a number of things of at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if d.err != nil || n > uint64(len(d.b)/size) {
		d.err = errIndex
		return 0
	}
	return int(n)
}

func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.err = errIndex
	}
	if d.err != nil {
		return errIndex
	}
	return nil
}

// AppendSubState appends the encoding of s, opaque to all but the bus.
func AppendSubState(dst []byte, s SubState) []byte {
	dst = append(dst, stateVersion)
	dst = binary.AppendUvarint(dst, uint64(s.Partition))
	dst = binary.AppendUvarint(dst, uint64(s.Next))
	dst = binary.AppendUvarint(dst, uint64(s.Marks))
	dst = appendMark(dst, s.Watermark, s.Idle)
	dst = binary.AppendUvarint(dst, uint64(len(s.Table)))
	for _, p := range s.Table {
		dst = binary.AppendUvarint(dst, uint64(p.Producer))
		dst = appendMark(dst, p.Watermark, p.Idle)
	}
	return dst
}

func appendMark(dst []byte, watermark int64, idle bool) []byte {
	flags := byte(0)
	if idle {
		flags |= markIdle
	}
	if watermark == NoWatermark {
		return append(dst, flags)
	}
	return binary.AppendVarint(append(dst, flags|markHas), watermark)
}

func (d *decoder) markPair() (watermark int64, idle bool) {
	flags := d.byte()
	if flags&^(markIdle|markHas) != 0 {
		d.err = errIndex
	}
	watermark = NoWatermark
	if flags&markHas != 0 {
		watermark = d.varint()
	}
	return watermark, flags&markIdle != 0
}

// DecodeSubState reads what AppendSubState wrote.
func DecodeSubState(b []byte) (SubState, error) {
	d := decoder{b: b}
	if d.byte() != stateVersion && d.err == nil {
		return SubState{}, fmt.Errorf("bus: a position of version %d is not known", b[0])
	}
	s := SubState{Partition: int(d.uvarint32())}
	s.Next, s.Marks = Offset(d.uvarint()), wal.LSN(d.uvarint())
	s.Watermark, s.Idle = d.markPair()
	for range d.count(2) {
		p := ProducerMark{Producer: ProducerID(d.uvarint32())}
		p.Watermark, p.Idle = d.markPair()
		s.Table = append(s.Table, p)
	}
	return s, d.end()
}
