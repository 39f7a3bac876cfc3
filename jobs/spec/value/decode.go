package value

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
	"unsafe"
)

// Decoder turns JSON texts into rows with a slot for every path that a job touches. It learns the order of the fields
// from the texts it sees, so it is for one goroutine.
type Decoder struct {
	shape  *Shape
	root   node
	broken bool // the text under way has line breaks between its tokens
	arena  *Arena
	slots  []Value
}

// node is an object that is looked into.
type node struct {
	kids    []kid
	lo, hi  int // the slots of everything below
	learned []learned
	lessons int
}

type kid struct {
	name string
	slot int   // -1 if nobody reads the field itself
	node *node // nil if nobody looks into it
}

// learned is a field that stood at this place in an earlier text: its name with quotes and colon, as it was written.
type learned struct {
	text string
	head uint64 // the first 8 bytes of text, under mask
	mask uint64
	kid  *kid // nil for a field that nobody reads
}

const (
	lessonsMax    = 256 // learning allocates; texts without any order are read without it
	learnedFields = 128
)

// NewDecoder returns a decoder whose rows have a slot for each of paths.
func NewDecoder(paths [][]string) *Decoder {
	paths = slices.Clone(paths)
	slices.SortFunc(paths, slices.Compare[[]string])
	paths = slices.CompactFunc(paths, slices.Equal[[]string])
	paths = slices.DeleteFunc(paths, func(p []string) bool { return len(p) == 0 })
	d := &Decoder{shape: &Shape{kind: shapeJSON, slots: len(paths), paths: paths}}
	d.root.build(paths, 0, 0)
	return d
}

// build makes the children of an object from the sorted paths that lead through it; depth names are used up.
func (n *node) build(paths [][]string, base, depth int) {
	n.lo, n.hi = base, base+len(paths)
	for i := 0; i < len(paths); {
		name := paths[i][depth]
		j := i
		for j < len(paths) && paths[j][depth] == name {
			j++
		}
		k := kid{name: name, slot: -1}
		if len(paths[i]) == depth+1 {
			k.slot = base + i
			i++
		}
		if i < j {
			k.node = &node{}
			k.node.build(paths[i:j], base+i, depth+1)
		}
		n.kids = append(n.kids, k)
		i = j
	}
}

// Shape returns the shape of the decoder's rows.
func (d *Decoder) Shape() *Shape { return d.shape }

// Decode checks b, JSON, and returns its row, which aliases b. The error is a *SyntaxError.
func (d *Decoder) Decode(b []byte, a *Arena) (Row, error) {
	if len(b) > MaxBytes {
		return Row{}, &SyntaxError{Offset: MaxBytes, Msg: "the text is too long"}
	}
	slots := a.Values(d.shape.slots)
	d.arena, d.slots, d.broken = a, slots, false
	i := 0
	if len(b) > 0 && b[0] <= ' ' {
		i = skipSpace(b, 0)
	}
	start := i
	if i < len(b) && b[i] == '{' {
		i = d.object(b, i+1, &d.root, 1)
	} else {
		i = d.skip(b, i, 0)
	}
	if i < 0 {
		return Row{}, explain(b, ^i)
	}
	if i < len(b) {
		if end := skipSpace(b, i); end < len(b) {
			return Row{}, explain(b, end)
		}
	}
	raw := b[start:i]
	if d.broken {
		return d.Decode(bytesOf(compact(raw, a)), a)
	}
	return Row{shape: d.shape, raw: unsafe.String(&raw[0], len(raw)), slots: unsafe.Pointer(unsafe.SliceData(slots))}, nil
}

// space is skipSpace that remembers line breaks.
func (d *Decoder) space(b []byte, i int) int {
	end := skipSpace(b, i)
	d.broken = d.broken || hasBreak(b[i:end])
	return end
}

// nested is skipValue for a list or an object that remembers line breaks.
func (d *Decoder) nested(b []byte, i, depth int) int {
	end := skipValue(b, i, depth)
	if end >= 0 && hasBreak(b[i:end]) {
		d.broken = true
	}
	return end
}

// object reads the object whose brace stands before i and fills the slots below n.
func (d *Decoder) object(b []byte, i int, n *node, depth int) int {
	if depth > MaxDepth {
		return bad(i - 1)
	}
	if i < len(b) && b[i] <= ' ' {
		i = d.space(b, i)
	}
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	at := 0
	for {
		var k *kid
		if at < len(n.learned) && i+8 <= len(b) && n.learned[at].stands(b, i) {
			k = n.learned[at].kid
			i += len(n.learned[at].text)
		} else {
			start := i
			var tight bool
			if k, tight, i = n.name(b, i); i < 0 {
				return i
			}
			if tight {
				at = n.learn(b[start:i], at, k)
			} else {
				d.broken = d.broken || hasBreak(b[start:i])
			}
		}
		at++
		if i < len(b) && b[i] <= ' ' {
			i = d.space(b, i)
		}
		// Plain strings up to 8 bytes are by far the most of what nobody reads: they take no call.
		if k == nil && i+9 <= len(b) && b[i] == '"' {
			m := special(load(b, i+1))
			if end := i + 1 + bits.TrailingZeros64(m)>>3; m != 0 && b[end] == '"' {
				i = end + 1
			} else if i, _ = scanString(b, i+1); i < 0 {
				return i
			}
		} else if k == nil && i < len(b) && b[i]-'0' <= 9 {
			if i = skipNumber(b, i); i < 0 {
				return i
			}
		} else if k == nil {
			if i = d.skip(b, i, depth); i < 0 {
				return i
			}
		} else if i = d.field(b, i, k, depth); i < 0 {
			return i
		}
		if i < len(b) && b[i] <= ' ' {
			i = d.space(b, i)
		}
		if i >= len(b) {
			return bad(i)
		}
		if b[i] != ',' {
			if b[i] == '}' {
				return i + 1
			}
			return bad(i)
		}
		if i++; i < len(b) && b[i] <= ' ' {
			i = d.space(b, i)
		}
	}
}

// stands reports whether l is what stands at i, from where there are eight bytes at least.
func (l *learned) stands(b []byte, i int) bool {
	return load(b, i)&l.mask == l.head && (len(l.text) <= 8 || l.restStands(b, i))
}

func (l *learned) restStands(b []byte, i int) bool {
	end := i + len(l.text)
	return end <= len(b) && string(b[i+8:end]) == l.text[8:]
}

// name reads a name that was not expected, with its colon; tight says that no space stands between the two.
func (n *node) name(b []byte, i int) (k *kid, tight bool, end int) {
	if end = skipName(b, i); end < 0 {
		return nil, false, end
	}
	q, flags := scanString(b, i+1)
	name := b[i+1 : q-1]
	for j := range n.kids {
		if k := &n.kids[j]; k.name == string(name) || flags&hasEscape != 0 && k.name == unescape(name, flags, nil) {
			return k, q+1 == end, end
		}
	}
	return nil, q+1 == end, end
}

// learn remembers a field at its place, or finds the place where it was learned. It returns the place.
func (n *node) learn(text []byte, at int, k *kid) int {
	for j := at + 1; j < len(n.learned); j++ { // a field that is sometimes missing
		if n.learned[j].text == string(text) {
			return j
		}
	}
	if n.lessons++; n.lessons > lessonsMax || at >= learnedFields || len(text) < 3 {
		return at
	}
	l := learned{text: string(text), kid: k}
	var head [8]byte
	l.mask = ^uint64(0)
	if c := copy(head[:], l.text); c < 8 {
		l.mask = 1<<(8*c) - 1
	}
	l.head = binary.LittleEndian.Uint64(head[:])
	if at >= len(n.learned) {
		n.learned = append(n.learned, l)
		return len(n.learned) - 1
	}
	n.learned[at] = l
	return at
}

// skip reads a value that nobody reads.
func (d *Decoder) skip(b []byte, i, depth int) int {
	if i >= len(b) {
		return bad(i)
	}
	switch c := b[i]; {
	case c == '"':
		i, _ = scanString(b, i+1)
		return i
	case c-'0' <= 9 || c == '-':
		return skipNumber(b, i)
	case c == '{' || c == '[':
		return d.nested(b, i, depth)
	}
	return skipWord(b, i)
}

// field reads a value that somebody reads or looks into.
func (d *Decoder) field(b []byte, i int, k *kid, depth int) int {
	if k.node != nil {
		clear(d.slots[k.node.lo:k.node.hi]) // a duplicate name: the last one counts
		if i < len(b) && b[i] == '{' {
			end := d.object(b, i+1, k.node, depth+1)
			if end >= 0 && k.slot >= 0 {
				d.slots[k.slot] = ofRaw(unsafe.String(&b[i], end-i))
			}
			return end
		}
	}
	if k.slot < 0 {
		return d.skip(b, i, depth)
	}
	if i >= len(b) {
		return bad(i)
	}
	v := &d.slots[k.slot]
	switch c := b[i]; {
	case c == '"':
		end, flags := scanString(b, i+1)
		if end < 0 {
			return end
		}
		*v = OfString(unescape(b[i+1:end-1], flags, d.arena))
		return end
	case c-'0' <= 9 || c == '-':
		*v, i = scanNumber(b, i)
		return i
	case c == '{' || c == '[':
		end := d.nested(b, i, depth)
		if end >= 0 {
			*v = ofRaw(unsafe.String(&b[i], end-i))
		}
		return end
	}
	end := skipWord(b, i)
	if end >= 0 {
		*v, _ = readValue(b, i, nil)
	}
	return end
}

// String lists the paths that the decoder fills slots for.
func (d *Decoder) String() string {
	var parts []string
	for _, p := range d.shape.paths {
		parts = append(parts, strings.Join(p, "."))
	}
	return strings.Join(parts, " ")
}
