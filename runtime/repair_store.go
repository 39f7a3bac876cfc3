package runtime

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
)

// LostStored is what a topic loses of what had moved out of the log: the log says that it is in the topic store, or said so in
// what is removed, and the two do not meet any more.
type LostStored struct {
	Topic     string     `json:"topic"`
	Partition int        `json:"partition"`
	From      bus.Offset `json:"from"` // records From up to, without, To
	To        bus.Offset `json:"to"`
}

func pointers[T any](list []T) (out []*T) {
	for i := range list {
		out = append(out, &list[i])
	}
	return out
}

// fitStore brings the topic store and what is kept of the log together.
func (k *keptLog) fitStore() (err error) {
	if k.fits, err = k.bus.FitStore(); err != nil {
		return err
	}
	for _, f := range k.fits {
		for _, r := range f.Lost {
			k.say.Store = append(k.say.Store, LostStored{Topic: k.bus.Spec(f.Topic).Name, Partition: f.Partition, From: r.From, To: r.To})
		}
		for _, file := range f.Beyond {
			k.say.Aside = append(k.say.Aside, filepath.Join("topics", file))
		}
		if f.Cut != "" {
			k.say.Aside = append(k.say.Aside, filepath.Join("topics", f.Cut))
		}
	}
	return nil
}

// passStored tells of what a subscription had yet to read between the topic store and the log.
func (k *keptLog) passStored(j *jobEntry, topic bus.TopicID, have bus.SubState) {
	first := k.bus.First(topic, have.Partition)
	for _, f := range k.fits {
		if f.Topic != topic || f.Partition != have.Partition || j.Phase == PhaseEnded {
			continue
		}
		for _, r := range f.Lost {
			if from := max(r.From, have.Next); r.From >= first && from < r.To {
				k.say.Unread = append(k.say.Unread, LostUnread{Job: j.Name, Topic: k.bus.Spec(topic).Name, Partition: f.Partition, Records: int64(r.To - from)})
			}
		}
	}
}

// unknownSavepoints finds the savepoints that nothing kept names: the next run removes them.
func (k *keptLog) unknownSavepoints(dataDir string) error {
	files, err := os.ReadDir(filepath.Join(dataDir, "savepoints"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("runtime: repair: savepoints: %w", err)
	}
	for _, f := range files {
		if name, is := strings.CutSuffix(f.Name(), ".savepoint"); is && k.ledger.Savepoints[name] == nil {
			k.say.Aside = append(k.say.Aside, filepath.Join("savepoints", f.Name()))
		}
	}
	return nil
}

// asideDir is where the files are kept that a repaired log does not know.
func asideDir(dataDir string, now time.Time) string {
	return filepath.Join(dataDir, "cut-"+now.UTC().Format("20060102T150405Z"))
}

// keepAside keeps what the next run removes or cuts, before the repair is decided upon: another name for each file, or a copy
// of one that still grows. A repair that does not come to its end has done no harm.
func (k *keptLog) keepAside(dataDir string, now time.Time) error {
	var grows []string
	for _, f := range k.fits {
		if f.Cut != "" {
			grows = append(grows, filepath.Join("topics", f.Cut))
		}
	}
	dirs := map[string]bool{}
	for _, file := range k.say.Aside {
		from, to := filepath.Join(dataDir, file), filepath.Join(asideDir(dataDir, now), file)
		err := bus.OSDisk{}.MakeDir(filepath.Dir(to))
		if err == nil {
			if slices.Contains(grows, file) {
				err = copyFile(from, to)
			} else if err = os.Link(from, to); err != nil && !errors.Is(err, fs.ErrExist) {
				err = copyFile(from, to) // a file system without links
			}
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("runtime: repair: keeping a file aside: %w", err)
		}
		dirs[filepath.Dir(to)] = true
	}
	for dir := range dirs {
		if err := (bus.OSDisk{}).SyncDir(dir); err != nil {
			return fmt.Errorf("runtime: repair: keeping files aside: %w", err)
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
