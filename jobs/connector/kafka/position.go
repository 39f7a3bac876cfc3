package kafka

import (
	"encoding/binary"
	"fmt"
)

const (
	positionVersion = 1
	positionLen     = 30 // without the end
	positionEndLen  = 38
	flagEnd         = 1
)

// position is where a partition is to be read on; doc.go draws its encoding.
type position struct {
	offset  int64
	epoch   int32
	topicID [16]byte
	bounded bool
	end     int64 // the first offset that is not read any more
}

func (p position) encode() []byte {
	b := make([]byte, 0, positionEndLen)
	flags := byte(0)
	if p.bounded {
		flags = flagEnd
	}
	b = append(b, positionVersion, flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.offset))
	b = binary.LittleEndian.AppendUint32(b, uint32(p.epoch))
	b = append(b, p.topicID[:]...)
	if p.bounded {
		b = binary.LittleEndian.AppendUint64(b, uint64(p.end))
	}
	return b
}

func decodePosition(b []byte) (position, error) {
	bad := fmt.Errorf("position %x is not one of a kafka source", b)
	if len(b) < positionLen || b[0] != positionVersion || b[1]&^flagEnd != 0 {
		return position{}, bad
	}
	p := position{
		bounded: b[1]&flagEnd != 0,
		offset:  int64(binary.LittleEndian.Uint64(b[2:])),
		epoch:   int32(binary.LittleEndian.Uint32(b[10:])),
	}
	copy(p.topicID[:], b[14:])
	switch {
	case p.bounded && len(b) == positionEndLen:
		p.end = int64(binary.LittleEndian.Uint64(b[positionLen:]))
	case p.bounded || len(b) != positionLen:
		return position{}, bad
	}
	if p.offset < 0 || p.epoch < -1 || p.end < 0 {
		return position{}, bad
	}
	return p, nil
}
