package wal

// View is a log read without its lock and without changing anything, as it stood when the View was opened: every whole
// frame of it, durable or not. The log may be in use; what is dropped meanwhile is [ErrGone].
type View struct {
	src  source
	desc Description
}

// OpenView opens the log in dir for reading. It reads the newest generation, and fails where Open would refuse.
func OpenView(dir string) (*View, error) { return openView(osDisk{}, dir) }

func openView(d disk, dir string) (*View, error) {
	desc, err := info(d, dir)
	if err != nil {
		return nil, err
	}
	return viewOf(d, dir, desc), nil
}

func viewOf(d disk, dir string, desc Description) *View {
	return &View{desc: desc, src: source{
		disk: d, dir: dir,
		gens: func() []Generation { return desc.Generations },
		end:  func() LSN { return desc.Last },
	}}
}

// Description returns what Info finds.
func (v *View) Description() Description { return v.desc }

// Reader returns a cursor whose first frame is from; 0 stands for the oldest.
func (v *View) Reader(from LSN) (*Reader, error) { return newReader(v.src, from) }
