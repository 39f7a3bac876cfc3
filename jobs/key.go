package jobs

import (
	"fmt"
	"reflect"

	"github.com/cespare/xxhash/v2"
)

// KeyGroups is the number of key groups. It is part of every data directory and never changes in one.
const KeyGroups = 128

// Key is a record's key, encoded. Two keys are the same if their Bytes are.
type Key struct {
	Bytes []byte
	Group uint8 // GroupOf(Bytes)
}

// MakeKey returns the key with the encoding b, which it keeps.
func MakeKey(b []byte) Key { return Key{Bytes: b, Group: GroupOf(b)} }

// IsZero reports whether the record has no key.
func (k Key) IsZero() bool { return k.Bytes == nil }

// GroupOf returns the group of an encoded key: xxhash64 of its bytes modulo KeyGroups.
func GroupOf(encoded []byte) uint8 { return uint8(xxhash.Sum64(encoded) % KeyGroups) }

// Owner returns which of n subtasks or partitions a group belongs to: ⌊group·n/128⌋, for 1 ≤ n ≤ KeyGroups.
func Owner(group uint8, n int) int {
	if n < 1 || n > KeyGroups {
		panic(fmt.Sprintf("jobs: %d owners of %d key groups", n, KeyGroups))
	}
	return int(group) * n / KeyGroups
}

// keyType says how keys of a Go type are written: types with one encoding have one text.
func keyType[K any]() string {
	t := reflect.TypeFor[K]()
	switch t.Kind() {
	case reflect.String, reflect.Bool:
		return t.Kind().String()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16,
		reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return "number"
	}
	if codec, err := NewStateCodec[K](); err == nil {
		return codec.plan.textOr()
	}
	return t.String()
}
