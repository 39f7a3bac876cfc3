package jobs

// RecordFault is what a Table panics with where the record in hand is at fault, and not the attempt: an entry beyond the
// limit. To the step it is as if its function had returned the error.
type RecordFault interface {
	error
	RecordFault()
}

// catchFault makes a panic with a RecordFault the error of the function that defers it. Other panics go on, with the stack
// that they began with.
func catchFault(err *error) {
	switch v := recover().(type) {
	case nil:
	case RecordFault:
		*err = v
	default:
		panic(v)
	}
}

// guard returns process with faults of the step's tables as its errors. A step without tables pays nothing.
func guard[In any](process func(*Rec[In]) error) func(*Rec[In]) error {
	return func(r *Rec[In]) (err error) {
		defer catchFault(&err)
		return process(r)
	}
}
