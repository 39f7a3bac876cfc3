package checkpoint

import "slices"

const (
	cellsIndexed  = 8        // a chain with more cells than this gets an index
	cellSlabMax   = 512      // cells made at once, at most
	valueSlabMax  = 64 << 10 // bytes of values made at once, at most
	valueOwnBytes = 512      // a larger value has memory of its own
	valueClasses  = valueOwnBytes/8 + 1
)

// cell is one entry: a value, or an element under a sub-key. Each addition makes a cell of its own; a deleted one stays in
// its chain, dead, until the epoch that deleted it is sealed.
type cell struct {
	val        []byte // its cap is the memory that belongs to it
	name       string // a value's key, an element's sub-key
	prev, next *cell  // in the order of addition
	chain      *chain
	gen        uint64 // Store.gen when last changed
	undo       uint32 // its newest change in its epoch's log; means something only if gen is of an unsealed epoch
	group      uint8
	dead       bool
}

// chain holds cells in the order of addition: the values of a namespace, or the elements of one key.
type chain struct {
	space      *space
	key        string // of elements
	group      uint8  // of elements
	values     bool
	head, tail *cell
	from       *cell            // no live cell lies before it
	index      map[string]*cell // the live ones; nil while there are few cells
	linked     int              // live or dead
	prev, next *chain           // the other keys with elements
}

// space is one namespace of a table; it has the memory of its cells, so that dropping it gives all back at once.
type space struct {
	table       *tableData
	ns          int64
	born        uint64 // Store.gen when it was made
	vals        chain
	lists       map[string]*chain // by key, those with cells
	first, last *chain            // the same in the order in which they were made
	linked      int               // cells of all chains
	live        int
	bytes       int64  // of the live ones: key, sub-key, value
	cut         uint64 // Store.cuts when its changes were last grouped, and
	group       int    // its place among the groups
	dropped     bool   // by an epoch not yet sealed
	gone        bool   // by a sealed one

	cells     []cell
	cellSlab  int
	cellFree  *cell
	values    []byte
	valueSlab int
	valueFree *[valueClasses][][]byte
}

// tableData is what a Table is a handle of; it outlives the attempt.
type tableData struct {
	step, name string
	seq        int // the table's place in Store.tables
	spaces     map[int64]*space
	cached     *space // the one used last, nil or in spaces
	dropped    []*space
	order      []int64 // namespaces with live entries, ascending
	lent       bool    // order was given to a caller, who may still hold it
}

func (t *tableData) space(ns int64) *space {
	if sp := t.cached; sp != nil && sp.ns == ns {
		return sp
	}
	sp := t.spaces[ns]
	if sp != nil {
		t.cached = sp
	}
	return sp
}

// show and hide keep order. What was lent is not changed under its holder: shrinking at the front and growing at the end
// leave it as it is, the rest copies.
func (t *tableData) show(ns int64) {
	if n := len(t.order); n == 0 || t.order[n-1] < ns {
		t.order = append(t.order, ns)
		return
	}
	i, found := slices.BinarySearch(t.order, ns)
	if found {
		panic("checkpoint: a namespace is listed twice")
	}
	if t.lent {
		t.order, t.lent = slices.Clone(t.order), false
	}
	t.order = slices.Insert(t.order, i, ns)
}

func (t *tableData) hide(ns int64) {
	i, found := slices.BinarySearch(t.order, ns)
	switch {
	case !found:
		panic("checkpoint: a namespace is not listed")
	case i == 0:
		t.order = t.order[1:]
	case i == len(t.order)-1:
		t.order = t.order[:i:i]
	default:
		if t.lent {
			t.order, t.lent = slices.Clone(t.order), false
		}
		t.order = slices.Delete(t.order, i, i+1)
	}
}

// find returns the live cell of a name, or nil.
func (ch *chain) find(name []byte) *cell {
	if ch.index != nil {
		return ch.index[string(name)]
	}
	for c := ch.from; c != nil; c = c.next {
		if c.name == string(name) && !c.dead {
			return c
		}
	}
	return nil
}

func (ch *chain) link(c *cell) {
	c.prev, c.next = ch.tail, nil
	if ch.tail != nil {
		ch.tail.next = c
	} else {
		ch.head = c
	}
	ch.tail = c
	if ch.from == nil {
		ch.from = c
	}
	ch.linked++
	ch.space.linked++
	switch {
	case ch.index != nil:
		ch.index[c.name] = c
	case ch.linked > cellsIndexed:
		ch.index = make(map[string]*cell, 2*cellsIndexed)
		for c := ch.from; c != nil; c = c.next {
			if !c.dead {
				ch.index[c.name] = c
			}
		}
	}
}

// kill hides a live cell, revive takes that back.
func (ch *chain) kill(c *cell) {
	c.dead = true
	if ch.index != nil {
		delete(ch.index, c.name)
	}
	for ch.from != nil && ch.from.dead {
		ch.from = ch.from.next
	}
}

func (ch *chain) revive(c *cell) {
	c.dead = false
	if ch.index != nil {
		ch.index[c.name] = c
	}
	ch.from = ch.head
}

// unlink takes a dead cell out.
func (ch *chain) unlink(c *cell) {
	if ch.from == c {
		ch.from = c.next
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		ch.head = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		ch.tail = c.prev
	}
	ch.linked--
	ch.space.linked--
}

// size is what an entry counts in bytes.
func (c *cell) size() int { return len(c.chain.key) + len(c.name) + len(c.val) }

// list returns the elements of a key, making the chain where there is none.
func (sp *space) list(group uint8, key []byte) *chain {
	if ch := sp.lists[string(key)]; ch != nil {
		return ch
	}
	ch := &chain{space: sp, key: string(key), group: group, prev: sp.last}
	if sp.lists == nil {
		sp.lists = map[string]*chain{}
	}
	sp.lists[ch.key] = ch
	if sp.last != nil {
		sp.last.next = ch
	} else {
		sp.first = ch
	}
	sp.last = ch
	return ch
}

// unlist removes a key that has no elements left.
func (sp *space) unlist(ch *chain) {
	delete(sp.lists, ch.key)
	if ch.prev != nil {
		ch.prev.next = ch.next
	} else {
		sp.first = ch.next
	}
	if ch.next != nil {
		ch.next.prev = ch.prev
	} else {
		sp.last = ch.prev
	}
}

func (sp *space) newCell() *cell {
	if c := sp.cellFree; c != nil {
		sp.cellFree = c.next
		c.next = nil
		return c
	}
	if len(sp.cells) == 0 {
		sp.cellSlab = min(max(2*sp.cellSlab, 4), cellSlabMax)
		sp.cells = make([]cell, sp.cellSlab)
	}
	c := &sp.cells[0]
	sp.cells = sp.cells[1:]
	return c
}

func (sp *space) freeCell(c *cell) {
	sp.freeValue(c.val)
	*c = cell{next: sp.cellFree}
	sp.cellFree = c
}

// newValue returns n bytes whose contents are arbitrary.
func (sp *space) newValue(n int) []byte {
	if n == 0 {
		return nil
	}
	if n > valueOwnBytes {
		return make([]byte, n)
	}
	class := (n + 7) / 8
	if sp.valueFree != nil {
		if free := sp.valueFree[class]; len(free) > 0 {
			sp.valueFree[class] = free[:len(free)-1]
			return free[len(free)-1][:n]
		}
	}
	if len(sp.values) < 8*class {
		sp.valueSlab = min(max(2*sp.valueSlab, 32*class), valueSlabMax)
		sp.values = make([]byte, sp.valueSlab)
	}
	v := sp.values[: n : 8*class]
	sp.values = sp.values[8*class:]
	return v
}

func (sp *space) freeValue(v []byte) {
	class := cap(v) / 8
	if class == 0 || cap(v) > valueOwnBytes {
		return
	}
	if sp.valueFree == nil {
		sp.valueFree = new([valueClasses][][]byte)
	}
	sp.valueFree[class] = append(sp.valueFree[class], v)
}

// fits reports whether memory of size have is the right one for n bytes.
func fits(n, have int) bool {
	if n > valueOwnBytes {
		return n <= have && have <= 2*n
	}
	return (n+7)/8*8 == have
}
