package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// TestReloadFromTheBeginning: what happens to the files, and who asks for a reload, while a process reads them and starts, is not
// passed over.
func TestReloadFromTheBeginning(t *testing.T) {
	for name, do := range map[string]func(file string) error{
		"a file changes": func(file string) error { return os.WriteFile(file, []byte("job: b"), 0o600) },
		"SIGHUP":         func(string) error { return syscall.Kill(os.Getpid(), syscall.SIGHUP) },
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "a.yaml")
			if err := os.WriteFile(file, []byte("job"), 0o600); err != nil {
				t.Fatal(err)
			}
			loads := make(chan struct{}, 16)
			r := &reloader{p: &process{app: &app{stderr: io.Discard}, logger: slog.New(slog.DiscardHandler)}, paths: []string{file}, watch: name != "SIGHUP",
				load: func() ([]*jobs.Job, error) { loads <- struct{}{}; return nil, errors.New("that will do") }}
			r.begin()
			defer signal.Stop(r.hup)
			if err := do(file); err != nil { // as if the process were still at reading the log
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { r.run(ctx); close(ended) }()
			select {
			case <-loads:
			case <-time.After(patience):
				t.Error("the files are not read again")
			}
			cancel()
			<-ended
		})
	}
}
