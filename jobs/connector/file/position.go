package file

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	positionVersion = 1
	positionLen     = 30
	positionFollow  = 2 // the version with the file's identity
	positionIDLen   = 46
	stateVersion    = 1
	stateLen        = 14
	checkBytes      = 64 // at most so many bytes before a place are covered by its checksum
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// position is a place in a file; doc.go draws its encoding.
type position struct {
	offset, line int64
	headN        uint32
	head         uint32
	tailN        uint8
	tail         uint32
	id           fileID // zero where the file is not followed
}

// fileID tells files apart whatever their names: device and inode.
type fileID struct{ dev, ino uint64 }

func (p position) encode() []byte {
	b := make([]byte, 0, positionIDLen)
	version := byte(positionVersion)
	if p.id != (fileID{}) {
		version = positionFollow
	}
	b = append(b, version)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.offset))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.line))
	b = binary.LittleEndian.AppendUint32(b, p.headN)
	b = binary.LittleEndian.AppendUint32(b, p.head)
	b = append(b, p.tailN)
	b = binary.LittleEndian.AppendUint32(b, p.tail)
	if version == positionFollow {
		b = binary.LittleEndian.AppendUint64(b, p.id.dev)
		b = binary.LittleEndian.AppendUint64(b, p.id.ino)
	}
	return b
}

func decodePosition(b []byte) (position, error) {
	plain := len(b) == positionLen && b[0] == positionVersion
	if !plain && !(len(b) == positionIDLen && b[0] == positionFollow) {
		return position{}, fmt.Errorf("position %x is not one of a file source", b)
	}
	p := position{
		offset: int64(binary.LittleEndian.Uint64(b[1:])),
		line:   int64(binary.LittleEndian.Uint64(b[9:])),
		headN:  binary.LittleEndian.Uint32(b[17:]),
		head:   binary.LittleEndian.Uint32(b[21:]),
		tailN:  b[25],
		tail:   binary.LittleEndian.Uint32(b[26:]),
	}
	if !plain {
		p.id = fileID{binary.LittleEndian.Uint64(b[positionLen:]), binary.LittleEndian.Uint64(b[positionLen+8:])}
	}
	if !plain && p.id == (fileID{}) || p.offset < 0 || p.line < 0 || int64(p.tailN) > p.offset || int64(p.headN) > p.offset {
		return position{}, fmt.Errorf("position %x does not hold together", b)
	}
	return p, nil
}

// state is what a sink has committed; doc.go draws its encoding.
type state struct {
	length int64
	tailN  uint8
	tail   uint32
}

func (s state) encode() []byte {
	b := make([]byte, 0, stateLen)
	b = append(b, stateVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.length))
	b = append(b, s.tailN)
	return binary.LittleEndian.AppendUint32(b, s.tail)
}

func decodeState(b []byte) (state, error) {
	if len(b) != stateLen || b[0] != stateVersion {
		return state{}, errors.New("it is not one of a file sink")
	}
	s := state{
		length: int64(binary.LittleEndian.Uint64(b[1:])),
		tailN:  b[9],
		tail:   binary.LittleEndian.Uint32(b[10:]),
	}
	if s.length < 0 || int64(s.tailN) > s.length {
		return state{}, errors.New("it does not hold together")
	}
	return s, nil
}

// ChangedError is a file that is not what it was when a position was taken in it.
type ChangedError struct {
	Path   string
	Offset int64 // up to where it had been read
	Why    string
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("file: %s: %s; it had been read up to byte %d: put the file back as it was, or start the job without its state",
		e.Path, e.Why, e.Offset)
}
