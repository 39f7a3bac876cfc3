package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
)

// everything lists a folder's tree with the sizes in it.
func everything(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		all = append(all, path+" "+info.Mode().String()+" "+info.ModTime().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestProbe: what Open or the first Write would refuse is refused before, with what to do, and nothing is left behind by asking.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	at := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	for name, content := range map[string]string{"empty": "", "full": "somebody's\n"} {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(at("shut"), 0o500), os.WriteFile(at("read"), nil, 0o400)); err != nil {
		t.Fatal(err)
	}
	unlessRoot := func(want string) string {
		if os.Geteuid() == 0 {
			return "" // who may do anything
		}
		return want
	}
	sink := Sink{Path: at("ours")}
	w := openSink(t, sink, jobs.ExactlyOnce, nil)
	state := mustWrite(t, w, "one")
	_ = mustWrite(t, w, "two") // at work, further than what the log knows
	before := everything(t, dir)
	for _, tt := range []struct {
		name string
		sink Sink
		env  jobs.SinkEnv
		want string // "" is fine
	}{
		{"new", Sink{Path: at("new")}, jobs.SinkEnv{}, ""},
		{"in folders that are made", Sink{Path: at("a", "b", "new")}, jobs.SinkEnv{}, ""},
		{"empty", Sink{Path: at("empty")}, jobs.SinkEnv{}, ""},
		{"ours", sink, jobs.SinkEnv{State: state}, ""},
		{"ours, as if it were new", sink, jobs.SinkEnv{}, "nothing of this output was ever written; move the file away"},
		{"somebody's", Sink{Path: at("full")}, jobs.SinkEnv{}, "has 11 bytes, but nothing of this output"},
		{"gone", Sink{Path: at("gone")}, jobs.SinkEnv{State: state}, "is gone, of which 4 bytes were committed"},
		{"a folder", Sink{Path: dir}, jobs.SinkEnv{}, "is not a regular file"},
		{"below a file", Sink{Path: at("full", "new")}, jobs.SinkEnv{}, "not a directory"},
		{"where nothing may be made", Sink{Path: at("shut", "a", "new")}, jobs.SinkEnv{}, unlessRoot("nothing may be made in folder " + at("shut"))},
		{"that may not be written", Sink{Path: at("read")}, jobs.SinkEnv{}, unlessRoot("may not be written")},
		{"no path", Sink{}, jobs.SinkEnv{}, "no path"},
		{"format", Sink{Path: at("new"), Format: "csv"}, jobs.SinkEnv{}, `"csv" is not one of`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.sink.Probe(t.Context(), tt.env)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if after := everything(t, dir); !slices.Equal(before, after) {
		t.Errorf("asking has changed\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
