package wal

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	repairName  = "REPAIR" // a manifest: its repair is decided upon
	cutPrefix   = "cut-"
	newSuffix   = ".new"
	tempSuffix  = ".tmp"
	manifestOf  = "manifest.json"
	manifestVer = 1
)

// Repair is a log that is held for repair: its lock is taken, and nothing is changed before Write. A log need not be
// damaged: a copy that was put back gets a new id in the same way.
//
// What is cut off is kept, in a folder of its own within the log's, with a manifest.
type Repair struct {
	dir  string
	cfg  Config
	disk disk
	lock *os.File

	survey  *survey
	choices []Choice
	begun   *manifest // a repair that was decided upon and not finished
}

// OpenRepair takes the lock of the log in dir and reads all of it. Another holder of the lock is a [*LockedError].
func OpenRepair(dir string, cfg Config) (*Repair, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("wal: repair: %w", err)
	}
	r := &Repair{dir: dir, cfg: cfg, disk: cfg.disk}
	if _, err := r.disk.List(dir); err != nil {
		return nil, fmt.Errorf("wal: repair: %w", err)
	}
	if _, ok := r.disk.(locker); ok {
		if r.lock, err = lock(dir); err != nil {
			return nil, err
		}
	}
	if err := r.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("wal: repair: %w", err), r.Close())
	}
	return r, nil
}

func (r *Repair) read() (err error) {
	if err = unfinished(r.disk, r.dir); errors.Is(err, ErrUnfinishedRepair) {
		r.begun, err = readManifest(r.disk, filepath.Join(r.dir, repairName))
		return err
	}
	if err != nil {
		return err
	}
	if r.survey, err = surveyLog(r.disk, r.dir, false); err != nil {
		return err
	}
	r.choices, err = r.survey.choices(r.disk, r.dir)
	return err
}

// Close gives the directory free.
func (r *Repair) Close() error {
	if r.lock == nil {
		return nil
	}
	err := r.lock.Close()
	r.lock = nil
	return err
}

// Begun reports whether a repair was decided upon and not finished: Finish is all that can be done then.
func (r *Repair) Begun() bool { return r.begun != nil }

// Report says what Verify would.
func (r *Repair) Report() Report { return r.survey.report }

// Choices returns the stretches that could be kept, oldest first; none where nothing can be.
func (r *Repair) Choices() []Choice { return r.choices }

// View reads what a choice keeps, as a log.
func (r *Repair) View(c Choice) *View {
	desc := Description{Last: c.Last, Catalog: c.Catalog}
	for _, g := range c.gens {
		desc.Generations = append(desc.Generations, Generation{First: g.first, Last: g.last(), Bytes: g.bytes})
		desc.ID, desc.Ancestors = g.catalog.id, g.catalog.ext.ancestors
	}
	return viewOf(r.disk, r.dir, desc)
}

// Removed calls fn with every whole frame that a choice gives up, as it is found in the files.
func (r *Repair) Removed(c Choice, fn func(f *Frame) error) error {
	return r.survey.removed(r.disk, r.dir, c, func(fr *found, cur *cursor, segment string) error {
		reader := &Reader{c: cur, fr: *fr}
		return fn(&Frame{LSN: fr.lsn, Kind: fr.kind, ID: fr.id, Durable: fr.durable, Bytes: fr.length, Segment: segment, Offset: fr.at,
			r: reader, table: fr.table})
	}, func(int64, bool) {})
}

// NewLog is how the log goes on behind what a Choice keeps.
type NewLog struct {
	Catalog func(first LSN) ([][]Section, error) // its frames, of which the first one's LSN is given; see Log.Rotate
	Rise    uint64                               // LSNs to leave out besides those that may have been given to what is removed
	Files   []string                             // other files that are cut off with it: they are kept too, and not removed
	Note    any                                  // for people, in the manifest
	Now     time.Time                            // names the folder
	id      LogID                                // tests fix it
}

// Done says what a repair did.
type Done struct {
	Folder string // of what was cut off, within the log's; "" where nothing was
	Old    LogID
	New    LogID
	First  LSN // of the new id
}

// manifest says what a repair does, so that it can be finished, and of what was cut where it was.
type manifest struct {
	Version     int      `json:"version"`
	Time        string   `json:"time"`
	Folder      string   `json:"folder"`
	OldID       string   `json:"old_id"`
	NewID       string   `json:"new_id"`
	First       LSN      `json:"first"`      // LSN under the new id
	KeptFirst   LSN      `json:"kept_first"` // 0: nothing is kept
	KeptLast    LSN      `json:"kept_last"`
	Generations []LSN    `json:"generations"` // cut off as a whole
	Tail        *tailCut `json:"tail,omitempty"`
	Foreign     []string `json:"foreign,omitempty"`
	Files       []string `json:"files,omitempty"`
	Damage      []string `json:"damage,omitempty"`
	Note        any      `json:"note,omitempty"`
}

// tailCut is where the newest generation that is kept ends.
type tailCut struct {
	Generation LSN    `json:"generation"`
	Segment    uint64 `json:"segment"`
	Size       int64  `json:"size"` // that is kept of it; those behind it are cut off as a whole
}

// Write makes the log end with what c keeps and go on, under a new id, with a generation whose catalog is n.Catalog. All of
// it is prepared first; once a manifest says so durably the repair counts, and Finish ends it after whatever crash.
func (r *Repair) Write(c Choice, n NewLog) (Done, error) {
	if r.begun != nil {
		return Done{}, ErrUnfinishedRepair
	}
	if n.id == (LogID{}) {
		rand.Read(n.id[:])
	}
	m := r.plan(c, n)
	if err := r.nameFolder(m); err != nil {
		return Done{}, fmt.Errorf("wal: repair: nothing was changed: %w", err)
	}
	if err := r.prepare(c, n, m); err != nil {
		return Done{}, fmt.Errorf("wal: repair: nothing was changed: %w", err)
	}
	r.begun = m
	return r.Finish()
}

// plan says what Write will do.
func (r *Repair) plan(c Choice, n NewLog) *manifest {
	m := &manifest{Version: manifestVer, Time: n.Now.UTC().Format(time.RFC3339), NewID: n.id.String(), KeptFirst: c.First, KeptLast: c.Last,
		First: c.following() + LSN(n.Rise), Foreign: r.survey.foreign, Files: n.Files, Note: n.Note}
	old := r.oldID(c)
	m.OldID = old.String()
	m.Folder = cutPrefix + n.Now.UTC().Format("20060102T150405Z") + "-" + m.OldID
	for _, g := range r.survey.gens {
		if !c.keeps(g) {
			m.Generations = append(m.Generations, g.first)
		}
	}
	if len(c.gens) > 0 {
		g := c.gens[len(c.gens)-1]
		tail := g.segments[g.end.seg]
		if g.end.seg < len(g.segments)-1 || g.end.off < tail.size {
			m.Tail = &tailCut{Generation: g.first, Segment: tail.index, Size: g.end.off}
		}
	}
	for _, d := range r.survey.report.Damage {
		m.Damage = append(m.Damage, d.Error())
	}
	return m
}

// nameFolder gives the folder another name where one has it: of a repair in the same second that cut back to the same id.
func (r *Repair) nameFolder(m *manifest) error {
	list, err := r.disk.List(r.dir)
	if err != nil {
		return err
	}
	name := m.Folder
	for n := 2; slices.ContainsFunc(list, func(e dirEntry) bool { return e.name == m.Folder }); n++ {
		m.Folder = fmt.Sprintf("%s-%d", name, n)
	}
	return nil
}

// following is the first LSN that cannot have been given to anything.
func (c *Choice) following() LSN {
	return max(c.Last, c.Behind.Last, c.Before.Last) + 1 + LSN(c.Behind.Bytes/headerLen)
}

// Unknown is more than the number of records, or of epochs, that can have been in what is cut off.
func (c *Cut) Unknown() uint64 { return uint64(c.Bytes) + uint64(c.Lost)*maxFrameBytes }

// oldID is the id that a choice ends under, or that of a log of which nothing is kept.
func (r *Repair) oldID(c Choice) (id LogID) {
	if len(c.gens) > 0 {
		return c.gens[len(c.gens)-1].catalog.id
	}
	for _, g := range r.survey.gens {
		if g.frames > 0 {
			return g.catalog.id
		}
	}
	_ = r.Removed(c, func(f *Frame) error { id = f.ID; return nil }) // read before without an error
	return id
}

// prepare makes all that is new, durably, and lets the manifest decide. Before that nothing that counts has changed.
func (r *Repair) prepare(c Choice, n NewLog, m *manifest) error {
	if err := r.clean(); err != nil {
		return err
	}
	if err := r.keep(m); err != nil {
		return err
	}
	if len(c.gens) > 0 {
		g := c.gens[len(c.gens)-1]
		gdir := filepath.Join(r.dir, generationName(g.first))
		if _, err := rewrite(r.disk, gdir, g); err != nil {
			return err
		}
		if err := r.disk.SyncDir(gdir); err != nil {
			return err
		}
	}
	if err := r.writeGeneration(c, n, m); err != nil {
		return err
	}
	path := filepath.Join(r.dir, repairName)
	if err := writeManifest(r.disk, path+tempSuffix, m); err != nil {
		return err
	}
	if err := r.disk.SyncDir(r.dir); err != nil {
		return err
	}
	if err := r.disk.Rename(path+tempSuffix, path); err != nil {
		return err
	}
	return r.disk.SyncDir(r.dir)
}

// clean removes what an earlier repair has prepared that was never decided upon.
func (r *Repair) clean() error {
	list, err := r.disk.List(r.dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		base, isNew := strings.CutSuffix(e.name, newSuffix)
		_, isGen := parseName(base)
		isCut := strings.HasPrefix(e.name, cutPrefix) && strings.HasSuffix(e.name, tempSuffix)
		path := filepath.Join(r.dir, e.name)
		switch {
		case e.dir && (isNew && isGen || isCut):
			err = removeTree(r.disk, path)
		case e.name == repairName+tempSuffix:
			err = r.disk.Remove(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keep gives what is cut off a second name, in the folder of what is cut; of a segment that is shortened it keeps a copy.
func (r *Repair) keep(m *manifest) error {
	folder := filepath.Join(r.dir, m.Folder+tempSuffix)
	if err := r.disk.Mkdir(folder); err != nil {
		return err
	}
	for _, first := range m.Generations {
		if err := r.keepGeneration(folder, first, nil); err != nil {
			return err
		}
	}
	if m.Tail != nil {
		if err := r.keepGeneration(folder, m.Tail.Generation, m.Tail); err != nil {
			return err
		}
	}
	for _, name := range m.Foreign {
		dir := filepath.Join(folder, filepath.Dir(name))
		if err := r.disk.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := r.disk.Link(filepath.Join(r.dir, name), filepath.Join(folder, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := r.disk.SyncDir(dir); err != nil {
			return err
		}
	}
	for _, path := range m.Files {
		if err := r.disk.Link(path, filepath.Join(folder, filepath.Base(path))); err != nil {
			return err
		}
	}
	if err := writeManifest(r.disk, filepath.Join(folder, manifestOf), m); err != nil {
		return err
	}
	return errors.Join(r.disk.SyncDir(folder), r.disk.SyncDir(r.dir))
}

// keepGeneration keeps the segments of a generation, of the one where the log will end from there on.
func (r *Repair) keepGeneration(folder string, first LSN, tail *tailCut) error {
	from, to := filepath.Join(r.dir, generationName(first)), filepath.Join(folder, generationName(first))
	list, err := r.disk.List(from)
	if err != nil {
		return err
	}
	if err := r.disk.Mkdir(to); err != nil {
		return err
	}
	for _, e := range list {
		index, ok := parseName(e.name)
		if tail != nil && (!ok || index < tail.Segment) {
			continue
		}
		a, b := filepath.Join(from, e.name), filepath.Join(to, e.name)
		if tail != nil && index == tail.Segment {
			err = r.disk.Copy(a, b, e.size)
		} else {
			err = r.disk.Link(a, b)
		}
		if err != nil {
			return err
		}
	}
	return r.disk.SyncDir(to)
}

// writeGeneration makes the generation of the new id, durably, under a name that no log has.
func (r *Repair) writeGeneration(c Choice, n NewLog, m *manifest) error {
	h := head{kind: KindCatalog, id: n.id, lsn: m.First, durable: c.Last}
	ext := &extension{first: m.First}
	if len(c.gens) > 0 {
		g := c.gens[len(c.gens)-1]
		h.prev = g.due.prev
		kept := append([]segment(nil), g.segments[:g.end.seg+1]...)
		kept[g.end.seg].size = g.end.off
		ext.segments, ext.listCRC, ext.bytes = summary(kept)
		ext.ancestors = append(ext.ancestors, g.catalog.ext.ancestors...)
	}
	ext.ancestors = append(ext.ancestors, Ancestor{ID: r.oldID(c), Last: c.Last})
	ext.ancestors = ext.ancestors[max(0, len(ext.ancestors)-maxAncestors):]
	catalog, err := n.Catalog(m.First)
	if err != nil {
		return err
	}
	ext.parts = len(catalog) - 1
	var frames [][]byte
	for _, sections := range catalog {
		if size := frameLen(ext, sections); size > maxFrameBytes || len(sections) > maxSections || len(catalog) > maxParts {
			return fmt.Errorf("%w: %d frames of a catalog, one of %d bytes", ErrTooLarge, len(catalog), size)
		}
		frame, crc := appendFrame(nil, h, ext, sections)
		frames = append(frames, frame)
		h.kind, h.lsn, h.prev, ext = KindCatalogPart, h.lsn+1, crc, nil
	}
	dir := filepath.Join(r.dir, generationName(m.First)+newSuffix)
	if err := r.disk.Mkdir(dir); err != nil {
		return err
	}
	e, err := r.disk.OpenEngine(dir, r.cfg.SegmentBytes)
	if err != nil {
		return err
	}
	if err := errors.Join(e.Write(1, frames), e.Close()); err != nil {
		return err
	}
	return errors.Join(r.disk.SyncDir(dir), r.disk.SyncDir(r.dir))
}

// Finish does what a manifest has decided. Each step may have been done before.
func (r *Repair) Finish() (Done, error) {
	m := r.begun
	if m == nil {
		return Done{}, errors.New("wal: repair: there is none to finish")
	}
	if err := r.finish(m); err != nil {
		return Done{}, fmt.Errorf("wal: repair: it is begun and not finished, run it again: %w", err)
	}
	r.begun = nil
	d := Done{Folder: filepath.Join(r.dir, m.Folder), First: m.First}
	return d, errors.Join(parseID(m.OldID, &d.Old), parseID(m.NewID, &d.New))
}

func (r *Repair) finish(m *manifest) error {
	for _, first := range m.Generations {
		name := filepath.Join(r.dir, generationName(first))
		if err := moved(r.disk.Rename(name, name+dropSuffix)); err != nil {
			return err
		}
		if err := r.disk.SyncDir(r.dir); err != nil {
			return err
		}
		if err := moved(removeAll(r.disk, name+dropSuffix)); err != nil {
			return err
		}
	}
	for _, name := range m.Foreign {
		if err := moved(r.disk.Remove(filepath.Join(r.dir, name))); err != nil {
			return err
		}
		if err := moved(r.disk.SyncDir(filepath.Join(r.dir, filepath.Dir(name)))); err != nil {
			return err
		}
	}
	if err := r.cut(m.Tail); err != nil {
		return err
	}
	name := filepath.Join(r.dir, generationName(m.First))
	if err := moved(r.disk.Rename(name+newSuffix, name)); err != nil {
		return err
	}
	folder := filepath.Join(r.dir, m.Folder)
	if err := moved(r.disk.Rename(folder+tempSuffix, folder)); err != nil {
		return err
	}
	if err := r.disk.SyncDir(r.dir); err != nil {
		return err
	}
	if err := moved(r.disk.Remove(filepath.Join(r.dir, repairName))); err != nil {
		return err
	}
	return r.disk.SyncDir(r.dir)
}

// cut shortens the newest generation that is kept.
func (r *Repair) cut(t *tailCut) error {
	if t == nil {
		return nil
	}
	gdir := filepath.Join(r.dir, generationName(t.Generation))
	segs, _, err := listFiles(r.disk, gdir)
	if err != nil {
		return err
	}
	for i := len(segs) - 1; i >= 0 && segs[i].index > t.Segment; i-- {
		if err := r.disk.Remove(filepath.Join(gdir, segmentName(segs[i].index))); err != nil {
			return err
		}
	}
	if err := r.disk.Truncate(filepath.Join(gdir, segmentName(t.Segment)), t.Size); err != nil {
		return err
	}
	return r.disk.SyncDir(gdir)
}

// moved is err, but for that of what was done before.
func moved(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeTree removes a directory with the directories in it.
func removeTree(d disk, dir string) error {
	list, err := d.List(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.dir {
			if err := removeTree(d, filepath.Join(dir, e.name)); err != nil {
				return err
			}
		}
	}
	return removeAll(d, dir)
}

// unfinished is ErrUnfinishedRepair where a repair was decided upon and not finished.
func unfinished(d disk, dir string) error {
	list, err := d.List(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.name == repairName {
			return ErrUnfinishedRepair
		}
	}
	return nil
}

func writeManifest(d disk, path string, m *manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return d.WriteFile(path, append(b, '\n'))
}

func readManifest(d disk, path string) (*manifest, error) {
	f, err := d.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && int64(len(b)) < size {
		return nil, err
	}
	m := new(manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if m.Version != manifestVer {
		return nil, fmt.Errorf("%s: version %d is not known", path, m.Version)
	}
	return m, nil
}
