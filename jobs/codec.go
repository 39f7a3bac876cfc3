package jobs

import (
	"encoding/json"
)

// Codec turns records into bytes and back, at the ends of a job.
type Codec[T any] struct {
	Encode func(dst []byte, v T) ([]byte, error) // appends
	// Decode may keep b, which is immutable.
	Decode func(b []byte) (T, error)

	plain bool // decoding costs nothing: readers of a topic take the bytes rather than values kept beside them
}

// JSON is encoding/json's codec of T.
func JSON[T any]() Codec[T] {
	return Codec[T]{
		Encode: encodeJSON[T],
		Decode: func(b []byte) (v T, err error) { err = json.Unmarshal(b, &v); return v, err },
	}
}

// Text takes a record as a string.
func Text() Codec[string] {
	return Codec[string]{
		Encode: func(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil },
		Decode: func(b []byte) (string, error) { return string(b), nil },
	}
}

// Bytes takes a record as it is.
func Bytes() Codec[[]byte] {
	return Codec[[]byte]{
		Encode: func(dst, v []byte) ([]byte, error) { return append(dst, v...), nil },
		Decode: func(b []byte) ([]byte, error) { return b, nil },
		plain:  true,
	}
}
