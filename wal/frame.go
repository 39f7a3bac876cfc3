package wal

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strconv"
)

// LSN is a frame's place in the log: dense, from 1. 0 is none.
type LSN uint64

func (n LSN) String() string { return strconv.FormatUint(uint64(n), 10) }

// LogID names a log; it changes when durable frames are removed from it.
type LogID [16]byte

func (id LogID) String() string { return hex.EncodeToString(id[:]) }

func parseID(s string, id *LogID) error {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return fmt.Errorf("wal: %q is not a log's id", s)
	}
	copy(id[:], b)
	return nil
}

// FrameKind says what a frame is. KindCatalog is known here; the others are the caller's and opaque.
type FrameKind uint8

const (
	// KindCatalog is the first frame of each generation, written by Rotate.
	KindCatalog FrameKind = 1
	// KindCatalogPart is a frame in which a catalog goes on, behind its first.
	KindCatalogPart FrameKind = 255
)

// Section is one part of a frame. Kind and Owner are the caller's.
type Section struct {
	Kind  uint8
	Owner uint32
	Body  []byte
}

// SectionInfo is a line of a frame's table.
type SectionInfo struct {
	Kind  uint8
	Owner uint32
	Len   int // bytes of the body
}

// Ancestor is an id that the log had before, and the last LSN of it that was kept.
type Ancestor struct {
	ID   LogID
	Last LSN
}

const (
	frameMagic    = uint32('s') | 's'<<8 | 'w'<<16 | 'l'<<24
	frameVersion  = 1
	headerLen     = 56
	tableLineLen  = 16
	extensionLen  = 24
	ancestorLen   = 24
	partsLen      = 8
	minFrameBytes = headerLen + extensionLen + maxAncestors*ancestorLen + partsLen
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is a frame's header, decoded.
type head struct {
	kind     FrameKind
	ext      int // bytes of the extension
	id       LogID
	lsn      LSN
	durable  LSN
	prev     uint32
	sections int
	length   int
	crc      uint32
}

// headLen is the number of bytes up to the first body.
func (h *head) headLen() int { return headerLen + h.ext + h.sections*tableLineLen }

// extension is what a catalog says of the log before it.
type extension struct {
	segments  int
	listCRC   uint32
	bytes     int64
	first     LSN
	ancestors []Ancestor
	parts     int // frames behind this one in which the catalog goes on
}

// size is its length in a frame; a frame that is no catalog has none.
func (e *extension) size() int {
	if e == nil {
		return 0
	}
	n := extensionLen + len(e.ancestors)*ancestorLen
	if e.parts > 0 {
		n += partsLen
	}
	return n
}

// entry is a line of the table, with where its body begins in the frame.
type entry struct {
	SectionInfo
	off int
	crc uint32
}

// frameLen is the length that appendFrame gives a frame.
func frameLen(ext *extension, sections []Section) int64 {
	n := int64(headerLen) + int64(ext.size()) + int64(len(sections))*tableLineLen
	for i := range sections {
		n += int64(len(sections[i].Body))
	}
	return n
}

// appendFrame encodes a frame behind dst and returns dst and the frame's checksum. Of h it takes kind, id, lsn, durable
// and prev; ext is for catalogs, nil for the rest. See doc.go for the layout.
func appendFrame(dst []byte, h head, ext *extension, sections []Section) ([]byte, uint32) {
	start := len(dst)
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, frameMagic)
	dst = append(dst, frameVersion, byte(h.kind))
	dst = le.AppendUint16(dst, uint16(ext.size()))
	dst = append(dst, h.id[:]...)
	dst = le.AppendUint64(dst, uint64(h.lsn))
	dst = le.AppendUint64(dst, uint64(h.durable))
	dst = le.AppendUint32(dst, h.prev)
	dst = le.AppendUint32(dst, uint32(len(sections)))
	dst = le.AppendUint32(dst, uint32(frameLen(ext, sections)))
	dst = append(dst, 0, 0, 0, 0) // the checksum, below
	if ext != nil {
		dst = appendExtension(dst, ext)
	}
	for i := range sections {
		s := &sections[i]
		dst = append(dst, s.Kind, 0, 0, 0)
		dst = le.AppendUint32(dst, s.Owner)
		dst = le.AppendUint32(dst, uint32(len(s.Body)))
		dst = le.AppendUint32(dst, crc32.Checksum(s.Body, castagnoli))
	}
	crc := headCRC(dst[start:])
	le.PutUint32(dst[start+headerLen-4:], crc)
	for i := range sections {
		dst = append(dst, sections[i].Body...)
	}
	return dst, crc
}

func appendExtension(dst []byte, ext *extension) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, uint32(ext.segments))
	dst = le.AppendUint32(dst, ext.listCRC)
	dst = le.AppendUint64(dst, uint64(ext.bytes))
	dst = le.AppendUint64(dst, uint64(ext.first))
	for _, a := range ext.ancestors {
		dst = append(dst, a.ID[:]...)
		dst = le.AppendUint64(dst, uint64(a.Last))
	}
	if ext.parts > 0 {
		dst = le.AppendUint64(dst, uint64(ext.parts))
	}
	return dst
}

// headCRC is the checksum of a header with its extension and table; b ends with the table.
func headCRC(b []byte) uint32 {
	crc := crc32.Update(0, castagnoli, b[:headerLen-4])
	return crc32.Update(crc, castagnoli, b[headerLen:])
}

// decodeHeader reads the fixed part of a header from b, which holds headerLen bytes at least, and checks what can be
// checked without the rest: that headLen and length may be trusted as bounds.
func decodeHeader(b []byte) (h head, err error) {
	le := binary.LittleEndian
	if le.Uint32(b) != frameMagic {
		return h, errMagic
	}
	if b[4] != frameVersion {
		return h, errVersion
	}
	h.kind, h.ext = FrameKind(b[5]), int(le.Uint16(b[6:]))
	h.id = LogID(b[8:24])
	h.lsn, h.durable = LSN(le.Uint64(b[24:])), LSN(le.Uint64(b[32:]))
	h.prev = le.Uint32(b[40:])
	sections, length := le.Uint32(b[44:]), le.Uint32(b[48:])
	h.crc = le.Uint32(b[52:])
	if sections > maxSections || length > maxFrameBytes {
		return h, errLimit
	}
	h.sections, h.length = int(sections), int(length)
	if h.kind == 0 || h.lsn <= h.durable || h.length < h.headLen() {
		return h, errHead
	}
	if h.kind != KindCatalog {
		if h.ext != 0 {
			return h, errHead
		}
		return h, nil
	}
	ancestors := h.ext - extensionLen
	if ancestors%ancestorLen == partsLen {
		ancestors -= partsLen
	}
	if ancestors < 0 || ancestors%ancestorLen != 0 || ancestors/ancestorLen > maxAncestors {
		return h, errHead
	}
	return h, nil
}

// decodeTable checks b, the whole head of a frame whose fixed part is h, and returns the lines of its table in dst,
// which it reuses.
func decodeTable(dst []entry, h *head, b []byte) ([]entry, error) {
	if headCRC(b) != h.crc {
		return nil, errHeadCRC
	}
	le := binary.LittleEndian
	dst = dst[:0]
	off := int64(h.headLen())
	for line := b[headerLen+h.ext:]; len(line) > 0; line = line[tableLineLen:] {
		n := le.Uint32(line[8:])
		if line[1]|line[2]|line[3] != 0 || off+int64(n) > int64(h.length) {
			return nil, errHead
		}
		dst = append(dst, entry{
			SectionInfo: SectionInfo{Kind: line[0], Owner: le.Uint32(line[4:]), Len: int(n)},
			off:         int(off),
			crc:         le.Uint32(line[12:]),
		})
		off += int64(n)
	}
	if off != int64(h.length) {
		return nil, errHead
	}
	return dst, nil
}

// decodeExtension reads a catalog's extension; b is the head of the frame, checked.
func decodeExtension(h *head, b []byte) (extension, error) {
	le := binary.LittleEndian
	b = b[headerLen : headerLen+h.ext]
	ext := extension{
		segments: int(le.Uint32(b)),
		listCRC:  le.Uint32(b[4:]),
		bytes:    int64(le.Uint64(b[8:])),
		first:    LSN(le.Uint64(b[16:])),
	}
	for b = b[extensionLen:]; len(b) >= ancestorLen; b = b[ancestorLen:] {
		ext.ancestors = append(ext.ancestors, Ancestor{ID: LogID(b[:16]), Last: LSN(le.Uint64(b[16:]))})
	}
	if len(b) > 0 {
		parts := le.Uint64(b)
		if parts == 0 || parts > maxParts {
			return ext, errLimit
		}
		ext.parts = int(parts)
	}
	return ext, nil
}
