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
		gens: func() []Generation { return left(d, dir, desc.Generations) },
		end:  func() LSN { return desc.Last },
	}}
}

// left returns the generations without the oldest ones that are not there any more, where a newer one is, be it one that the view
// does not know: who has the log has dropped them.
func left(d disk, dir string, gens []Generation) []Generation {
	entries, err := d.List(dir)
	if err != nil {
		return gens
	}
	there, newest := map[string]bool{}, ""
	for _, e := range entries {
		if e.dir && len(e.name) == len(generationName(0)) {
			there[e.name], newest = true, max(newest, e.name)
		}
	}
	for len(gens) > 0 && !there[generationName(gens[0].First)] && generationName(gens[0].First) < newest {
		gens = gens[1:]
	}
	return gens
}

// Description returns what Info finds.
func (v *View) Description() Description { return v.desc }

// Reader returns a cursor whose first frame is from; 0 stands for the oldest.
func (v *View) Reader(from LSN) (*Reader, error) { return newReader(v.src, from) }
