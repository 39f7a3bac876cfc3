package bus

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/sidestream-dev/sidestream/wal"
)

const (
	indexVersion = 2
	stateVersion = 2

	markIdle  = 1
	markJoin  = 2
	markLeave = 4
	markHas   = 8 // a watermark follows

	stateLost = 16 // ranges follow
)

// AppendIndex appends the body of a SectionIndex, in an epoch's last frame: what the epoch publishes and says.
//
//	+---------+------+---------------------------------------------------------+-------+--------------------------------+
//	| version | pubs | each: topic, partition, count, base, bytes, part,       | marks | each: topic, producer, flags   |
//	| u8 = 2  | u    |       section; u. latest t                              | u     | u, u, u8 [watermark z]         |
//	+---------+------+---------------------------------------------------------+-------+--------------------------------+
//
//	u, z    uvarint, zigzag varint; t is a time, zigzag + 1 as u, 0 for none
//	latest  the highest event time of the records
//	part    LSN of the frame that holds the records; 0 is the frame of the index
//	flags   1 idle, 2 join, 4 leave, 8 a watermark follows
func AppendIndex(dst []byte, pubs []Publication, marks []Mark) []byte {
	dst = append(dst, indexVersion)
	dst = binary.AppendUvarint(dst, uint64(len(pubs)))
	for i := range pubs {
		p := &pubs[i]
		for _, v := range [...]uint64{uint64(p.Topic), uint64(p.Partition), uint64(p.Count), uint64(p.Base), uint64(p.size()), uint64(p.Part), uint64(p.Section)} {
			dst = binary.AppendUvarint(dst, v)
		}
		dst = appendTime(dst, p.Latest)
	}
	dst = binary.AppendUvarint(dst, uint64(len(marks)))
	for _, m := range marks {
		dst = binary.AppendUvarint(dst, uint64(m.Topic))
		dst = appendMark(dst, m)
	}
	return dst
}

func appendMark(dst []byte, m Mark) []byte {
	m = m.normal()
	flags := bit(m.Idle, markIdle) | bit(m.Join, markJoin) | bit(m.Leave, markLeave) | bit(m.Watermark != NoWatermark, markHas)
	dst = binary.AppendUvarint(dst, uint64(m.Producer))
	dst = append(dst, flags)
	if flags&markHas != 0 {
		dst = binary.AppendVarint(dst, m.Watermark)
	}
	return dst
}

// mark reads what appendMark wrote.
func (d *decoder) mark() Mark {
	m := Mark{Producer: ProducerID(d.uint32()), Watermark: NoWatermark}
	flags := d.byte()
	m.Idle, m.Join, m.Leave = flags&markIdle != 0, flags&markJoin != 0, flags&markLeave != 0
	if flags&markHas != 0 {
		m.Watermark = d.varint()
	}
	if flags&^(markIdle|markJoin|markLeave|markHas) != 0 || m != m.normal() || flags&markHas != 0 && m.Watermark == NoWatermark {
		d.fail(errFlags)
	}
	return m
}

// DecodeIndex reads what AppendIndex wrote. Data and Payload of the publications are nil.
func DecodeIndex(body []byte) ([]Publication, []Mark, error) {
	d := decoder{b: body}
	d.version(indexVersion)
	var pubs []Publication
	if n := d.count(8); n > 0 {
		pubs = make([]Publication, n)
	}
	for i := range pubs {
		pubs[i] = Publication{Topic: TopicID(d.uint32()), Partition: d.int31(), Count: d.int31(), Base: Offset(d.uvarint()),
			Bytes: d.int63(), Part: wal.LSN(d.uvarint()), Section: d.int31(), Latest: d.time()}
	}
	var marks []Mark
	if n := d.count(3); n > 0 {
		marks = make([]Mark, n)
	}
	for i := range marks {
		topic := TopicID(d.uint32())
		marks[i] = d.mark()
		marks[i].Topic = topic
	}
	if err := d.result("index"); err != nil {
		return nil, nil, err
	}
	return pubs, marks, nil
}

// normal returns m without what it cannot say: who joins, leaves or is idle gives no watermark, and nobody the final one.
func (m Mark) normal() Mark {
	switch {
	case m.Leave:
		m.Join, m.Idle, m.Watermark = false, false, NoWatermark
	case m.Join:
		m.Idle, m.Watermark = false, NoWatermark
	case m.Idle, m.Watermark == math.MaxInt64:
		m.Watermark = NoWatermark
	}
	return m
}

// applyMark folds a normal mark into a table of producers, which is sorted by id, in place.
func applyMark(table []ProducerMark, m Mark) []ProducerMark {
	i, ok := slices.BinarySearchFunc(table, m.Producer, func(p ProducerMark, id ProducerID) int { return int(p.Producer) - int(id) })
	switch {
	case m.Leave && ok:
		return slices.Delete(table, i, i+1)
	case m.Leave:
		return table
	case !ok:
		table = slices.Insert(table, i, ProducerMark{Producer: m.Producer, Watermark: NoWatermark})
	}
	if m.Join {
		return table // one that is there already stays as it is
	}
	table[i].Watermark = max(table[i].Watermark, m.Watermark)
	table[i].Idle = m.Idle
	return table
}

// lowest returns the lowest watermark of the producers that are not idle; some is false where there is none such.
func lowest(table []ProducerMark) (watermark int64, some bool) {
	for _, p := range table {
		if !p.Idle && (!some || p.Watermark < watermark) {
			watermark, some = p.Watermark, true
		}
	}
	return watermark, some
}

// settle brings the state's watermark up to its table; it never goes back.
func (s *SubState) settle() {
	low, some := lowest(s.Table)
	s.Idle = !some && len(s.Table) > 0
	if some {
		s.Watermark = max(s.Watermark, low)
	}
}

// AppendSubState appends the encoding of s, opaque to all but the bus.
//
//	+---------+-----------+------+-------+---------+------------------------+-------------------------------------+
//	| version | partition | next | marks | dropped | flags u8 [watermark z] | [ranges u, each: from u, length u]  |
//	| u8 = 2  | u         | u    | u     | u       |                        | of what was lost, oldest first      |
//	+---------+-----------+------+-------+---------+------------------------+-------------------------------------+
//	| n | each: producer u, flags u8 [watermark z]  |
//	| u | in ascending order                        |
//	+---+-------------------------------------------+
//
//	flags   1 idle, 8 a watermark follows, 16 ranges follow (of the state alone)
func AppendSubState(dst []byte, s SubState) []byte {
	dst = append(dst, stateVersion)
	dst = binary.AppendUvarint(dst, uint64(s.Partition))
	dst = binary.AppendUvarint(dst, uint64(s.Next))
	dst = binary.AppendUvarint(dst, uint64(s.Marks))
	dst = binary.AppendUvarint(dst, s.Dropped)
	at := len(dst)
	dst = appendWatermark(dst, s.Watermark, s.Idle)
	if len(s.Lost) > 0 {
		dst[at] |= stateLost
		dst = binary.AppendUvarint(dst, uint64(len(s.Lost)))
		for _, l := range s.Lost {
			dst = binary.AppendUvarint(dst, uint64(l.From))
			dst = binary.AppendUvarint(dst, uint64(l.To-l.From))
		}
	}
	return appendTable(dst, s.Table)
}

func appendTable(dst []byte, table []ProducerMark) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(table)))
	for _, p := range table {
		dst = binary.AppendUvarint(dst, uint64(p.Producer))
		dst = appendWatermark(dst, p.Watermark, p.Idle)
	}
	return dst
}

func (d *decoder) table() []ProducerMark {
	n := d.count(2)
	if n == 0 {
		return nil
	}
	table := make([]ProducerMark, n)
	for i := range table {
		table[i].Producer = ProducerID(d.uint32())
		table[i].Watermark, table[i].Idle = d.watermark()
		if i > 0 && table[i].Producer <= table[i-1].Producer {
			d.fail(errOrder)
		}
	}
	return table
}

func appendWatermark(dst []byte, watermark int64, idle bool) []byte {
	flags := bit(idle, markIdle)
	if watermark == NoWatermark {
		return append(dst, flags)
	}
	return binary.AppendVarint(append(dst, flags|markHas), watermark)
}

func (d *decoder) watermark() (watermark int64, idle bool) {
	watermark, flags := d.flagged(0)
	return watermark, flags&markIdle != 0
}

// flagged reads flags, of which some more than those of a watermark are allowed, and the watermark.
func (d *decoder) flagged(more byte) (watermark int64, flags byte) {
	flags = d.byte()
	watermark = NoWatermark
	if flags&markHas != 0 {
		if watermark = d.varint(); watermark == NoWatermark {
			d.fail(errFlags)
		}
	}
	if flags&^(markIdle|markHas|more) != 0 {
		d.fail(errFlags)
	}
	return watermark, flags
}

// lost reads ranges.
func (d *decoder) lost() []Lost {
	n := d.count(2)
	if n == 0 {
		d.fail(errFlags)
		return nil
	}
	ranges := make([]Lost, n)
	for i := range ranges {
		from, length := d.uvarint(), d.uvarint()
		if length == 0 || from+length < from {
			d.fail(errRange)
		}
		ranges[i] = Lost{Offset(from), Offset(from + length)}
	}
	return ranges
}

// DecodeSubState reads what AppendSubState wrote.
func DecodeSubState(b []byte) (SubState, error) {
	d := decoder{b: b}
	d.version(stateVersion)
	s := SubState{Partition: d.int31(), Position: Position{Next: Offset(d.uvarint()), Marks: wal.LSN(d.uvarint())}, Dropped: d.uvarint()}
	var flags byte
	s.Watermark, flags = d.flagged(stateLost)
	if s.Idle = flags&markIdle != 0; flags&stateLost != 0 {
		s.Lost = d.lost()
	}
	s.Table = d.table()
	if err := d.result("position"); err != nil {
		return SubState{}, err
	}
	return s, nil
}
