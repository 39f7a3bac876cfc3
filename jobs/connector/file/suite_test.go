package file

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
)

func TestSourceSuite(t *testing.T) {
	for _, f := range []Format{JSONLines, CSV, Lines} {
		for _, ending := range []string{".in", ".in.gz", ".in.zst"} {
			t.Run(string(f)+ending, func(t *testing.T) {
				jobstest.TestSource(t, jobstest.SourceSuite{Records: 60, New: func(t *testing.T) jobs.Source {
					dir := t.TempDir()
					for p := range 3 {
						body := ""
						if f == CSV {
							body = "n,p\n"
						}
						for n := range 20 {
							body += fmt.Sprintf("%d,%d\n", n, p)
						}
						write(t, filepath.Join(dir, fmt.Sprintf("%d%s", p, ending)), string(packed(t, ending, body[:7], body[7:])))
					}
					return Source{Path: filepath.Join(dir, "*"+ending), Format: f}
				}})
			})
		}
	}
}

func TestFollowSuite(t *testing.T) {
	for _, f := range []Format{JSONLines, CSV, Lines} {
		t.Run(string(f), func(t *testing.T) {
			var dir string
			file := func(t *testing.T, p, from, to int) {
				body := ""
				if f == CSV && from == 0 {
					body = "n,p\n"
				}
				for n := from; n < to; n++ {
					body += fmt.Sprintf("%d,%d\n", n, p)
				}
				appendTo(t, filepath.Join(dir, fmt.Sprintf("%d.in", p)), body)
			}
			jobstest.TestSource(t, jobstest.SourceSuite{Records: 60,
				New: func(t *testing.T) jobs.Source {
					dir = t.TempDir()
					for p := range 3 {
						file(t, p, 0, 20)
					}
					return Source{Path: filepath.Join(dir, "*.in"), Format: f, Follow: true, Poll: 5 * time.Millisecond}
				},
				More: func(t *testing.T) { file(t, 1, 20, 22) },
				Split: func(t *testing.T) int {
					file(t, 7, 0, 5)
					return 5
				}})
		})
	}
}

func TestSinkSuite(t *testing.T) {
	for _, f := range []Format{JSONLines, Lines} {
		for _, name := range []string{"out", "out.gz"} {
			t.Run(string(f)+" "+name, func(t *testing.T) {
				var path string
				jobstest.TestSink(t, jobstest.SinkSuite{
					New: func(t *testing.T) jobs.Sink {
						path = filepath.Join(t.TempDir(), name)
						return Sink{Path: path, Format: f}
					},
					Read: func(t *testing.T) []string {
						return strings.Split(strings.TrimSuffix(string(unpacked(t, path)), "\n"), "\n")
					},
				})
			})
		}
	}
}

func TestSettings(t *testing.T) {
	k := SourceKind()
	for _, tt := range []struct {
		given map[string]any
		want  string // the field at fault, or ""
	}{
		{map[string]any{"path": "in/*.csv", "format": "csv", "line_bytes": "2MiB"}, ""},
		{map[string]any{"path": "[a"}, "path"},
		{map[string]any{"path": "a", "start": "latest"}, "start"},
		{map[string]any{"path": "a.gz", "follow": true}, "path"},
		{map[string]any{"path": "a", "follow": true, "poll_interval": "1ms"}, "poll_interval"},
		{map[string]any{"path": ""}, "path"},
		{map[string]any{"path": "a", "line_bytes": 0}, "line_bytes"},
		{map[string]any{"path": "a", "line_bytes": "2GiB"}, "line_bytes"},
	} {
		v, errs := connector.Complete(k.Fields, tt.given)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		s, err := k.New(v, connector.LoadEnv{BaseDir: "/base"})
		fe := connector.FieldErrors(err)
		if tt.want == "" {
			if want := (Source{Path: "/base/in/*.csv", Format: CSV, LineBytes: 2 << 20}); err != nil || s != jobs.Source(want) {
				t.Errorf("got %+v and %v, want %+v", s, err, want)
			}
		} else if len(fe) != 1 || fe[0].Field != tt.want {
			t.Errorf("%v: got %v, want an error of %s", tt.given, err, tt.want)
		}
	}
	for format, want := range map[string]connector.Encoding{"jsonl": connector.JSON, "csv": connector.JSON, "lines": connector.Text} {
		if got := k.Decodes(connector.Values{"format": format}); got != want {
			t.Errorf("%s decodes as %q, want %q", format, got, want)
		}
	}
	if got := SinkKind().Encodes(connector.Values{"format": "lines"}); got != connector.Text {
		t.Errorf("lines encodes as %q", got)
	}
	if _, err := SinkKind().New(connector.Values{"path": ""}, connector.LoadEnv{}); err == nil {
		t.Error("an empty path was accepted")
	}
}
