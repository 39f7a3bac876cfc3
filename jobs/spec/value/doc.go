// Package value holds the records of a YAML job: JSON values and rows that stay bytes until somebody reads them.
//
// A [Value] is one dynamic JSON value in three words. A [Row] is one record: the bytes it came in, the fields that the
// job's expressions touch (its slots), or both; its [Shape] says which. A [Decoder] is compiled for the touched paths
// and turns bytes into a Row in one pass. A [Row] that nobody changed is encoded as the bytes it came in.
//
// # What a decoder checks
//
// [Decoder.Decode] accepts RFC 8259 JSON and nothing else: structure, string escapes, UTF-8, number syntax and number
// range (a number beyond float64 is an error) are checked in unread fields too. Two deliberate limits: nesting deeper
// than [MaxDepth] and a text longer than [MaxBytes] are errors. A duplicate name is accepted, the last one wins. A lone
// surrogate escape reads as U+FFFD. A text with line breaks between its tokens is compacted, so that every row is one line.
//
// # Kinds survive
//
// What goes to the disk and comes back is what was there before: integers stay integers, and a float is always written
// with a fraction or an exponent (5.0, not 5). Times exist inside expressions only and become RFC 3339 strings in a row.
// So a reader that gets a row from memory and one that gets it from the disk see the same.
//
// # Ownership
//
// Rows and values are immutable and may be shared by any number of readers. They alias the bytes they were decoded from
// and the [Arena] they were made in, which must not be changed; who keeps one for long takes [Value.Clone].
//
// # Keys
//
// The encoding of a key is canonical JSON: no spaces, names sorted, shortest numbers, a float with an integral value that
// fits int64 written as that integer. Equal keys have equal bytes, and bytes compare as keys do for equality.
package value
