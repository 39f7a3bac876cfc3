package runtime

// slowCopies are the real files, but that a copy of a savepoint is begun only when it may be.
type slowCopies struct {
	snapshotFiles
	asked, may chan struct{}
}

func (f slowCopies) stage(savepoint string) (string, error) {
	close(f.asked)
	<-f.may
	return f.snapshotFiles.stage(savepoint)
}

// SlowCopies lets the one copy of a savepoint wait. Call it before Start.
func (rt *Runtime) SlowCopies() (asked <-chan struct{}, may chan<- struct{}) {
	f := slowCopies{rt.snapshots, make(chan struct{}), make(chan struct{})}
	rt.snapshots = f
	return f.asked, f.may
}

// SmallOutputs makes the limit of outputs to come so many bytes. Call it before Start.
func (rt *Runtime) SmallOutputs(bytes int64) { rt.committer.core.outputLimit = bytes }
