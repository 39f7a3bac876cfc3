package bus

import (
	"slices"
	"sort"
	"sync"

	"github.com/sidestream-dev/sidestream/wal"
)

// byteStep is how far apart, in bytes, the points lie at which a partition remembers how much was written before.
const byteStep = 256 << 10

// item is a publication, or the marks of a frame, in memory.
type item struct {
	lsn     wal.LSN
	base    Offset
	count   int
	data    []byte
	payload any
	marks   []Mark // of a marks item; count is 0
}

func (it *item) size() int64 { return int64(len(it.data)) + 64 }

// point says how many bytes were written before an offset.
type point struct {
	offset Offset
	bytes  int64
}

// partition is one partition. The items in memory are the newest; all of them are there from behind lastGone on.
type partition struct {
	number int

	mu       sync.Mutex
	next     Offset
	first    Offset // oldest still there
	total    int64  // bytes ever written
	items    []item
	memory   int64   // bytes of items
	lastGone wal.LSN // of the newest item that is not in memory
	points   []point
	gaps     []gap   // ascending
	wakes    []waker // replaced, never changed

	newest    Offset // where the newest epoch of this process begins
	newestLSN wal.LSN

	times     []timed // where in the log which times are
	timeBytes int64   // total when the newest of times was begun

	stored StorePart       // what the topic store holds
	segs   []*storeSegment // its segments, oldest first; replaced, never changed
}

// waker is whom to tell that there may be something new.
type waker struct {
	who *Reader
	f   func()
}

func newPartition(number int) *partition { return &partition{number: number} }

// listen makes wake call f for who, until silence.
func (p *partition) listen(who *Reader, f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakes = append(slices.Clone(p.wakes), waker{who, f})
}

func (p *partition) silence(who *Reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakes = slices.DeleteFunc(slices.Clone(p.wakes), func(w waker) bool { return w.who == who })
}

func (p *partition) add(lsn wal.LSN, pub *Publication, memory bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.points); n == 0 || p.total-p.points[n-1].bytes >= byteStep {
		p.points = append(p.points, point{pub.Base, p.total})
	}
	p.noteNewest(lsn, pub.Base)
	p.next = pub.Base + Offset(pub.Count)
	p.total += pub.Bytes
	p.noteTime(pub)
	p.put(item{lsn: lsn, base: pub.Base, count: pub.Count, data: pub.Data, payload: pub.Payload}, memory)
}

func (p *partition) addMarks(lsn wal.LSN, marks []Mark, memory bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(item{lsn: lsn, base: p.next, marks: marks}, memory)
}

func (p *partition) put(it item, memory bool) {
	if !memory {
		p.lastGone = it.lsn
		return
	}
	p.items = append(p.items, it)
	p.memory += it.size()
}

// evict gives memory back, oldest first, down to keep bytes, of what is durable.
func (p *partition) evict(durable wal.LSN, keep int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.items) && p.items[n].lsn <= durable && p.memory > keep {
		p.memory -= p.items[n].size()
		p.lastGone = p.items[n].lsn
		n++
	}
	if n > 0 {
		clear(p.items[:n])
		p.items = p.items[n:]
	}
}

// end returns the offset that the next record gets.
func (p *partition) end() Offset {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}

// dropLog notes that the log holds nothing before first any more.
func (p *partition) dropLog(first Offset) {
	p.mu.Lock()
	if p.stored.First != 0 {
		first = p.stored.From // older ones are in the store
	}
	p.mu.Unlock()
	p.drop(first)
}

// drop forgets what lies before first.
func (p *partition) drop(first Offset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.first = max(p.first, first)
	n := 0
	for n+1 < len(p.points) && p.points[n+1].offset <= p.first {
		n++
	}
	p.points = slices.Delete(p.points, 0, n)
	p.dropTimes()
}

// missing says that an offset is not there.
func (p *partition) missing(topic string, o Offset) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &OffsetError{Topic: topic, Partition: p.number, Offset: o, First: p.first, Next: p.next}
}

// bytesAt returns about how many bytes were written before an offset. The caller holds mu.
func (p *partition) bytesAt(o Offset) int64 {
	if o >= p.next {
		return p.total
	}
	i := sort.Search(len(p.points), func(i int) bool { return p.points[i].offset > o })
	if i == 0 {
		return 0
	}
	from, to := p.points[i-1], point{p.next, p.total}
	if i < len(p.points) {
		to = p.points[i]
	}
	if to.offset == from.offset {
		return from.bytes
	}
	return from.bytes + int64(float64(to.bytes-from.bytes)*float64(o-from.offset)/float64(to.offset-from.offset))
}

// wake calls whoever listens, without a lock.
func (p *partition) wake() {
	p.mu.Lock()
	wakes := p.wakes
	p.mu.Unlock()
	for _, w := range wakes {
		w.f()
	}
}

// find returns the index in items of the first that a reader at pos has not taken wholly; ok is false where some that it
// has not taken are no longer in memory. The caller holds mu.
func (p *partition) find(pos Position) (i int, ok bool) {
	if p.lastGone > pos.Marks {
		return 0, false
	}
	i = sort.Search(len(p.items), func(i int) bool { return p.items[i].lsn > pos.Marks })
	// Of what lies behind Marks, records before Next are taken and marks are not: who begins at an offset has both before it.
	for i < len(p.items) && p.items[i].marks == nil && p.items[i].base+Offset(p.items[i].count) <= pos.Next {
		i++
	}
	return i, true
}

// reached reports whether a reader of the log may go on in memory without having to leave it again at once: it has come to
// the newer half of what is there.
func (p *partition) reached(pos Position) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.find(pos)
	return ok && 2*i >= len(p.items)
}
