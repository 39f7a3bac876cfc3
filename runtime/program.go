package runtime

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// staysFailed is said of a job that failed for good before the process began, and of which nothing has changed since.
const staysFailed = " (it failed for good in an earlier run, and stays so: neither its definition nor the program has changed since; `job restart` tries it again)"

// program names the code that the jobs run: a job that failed for good is tried again by another one, which may be the mended.
func (rt *Runtime) program() string {
	if rt.cfg.Program != "" {
		return rt.cfg.Program
	}
	sum, err := executable()
	if err != nil {
		rt.logger.Warn("the executable cannot be read: a job that fails for good stays so until it is restarted, also when the program has changed", "err", err)
	}
	return sum
}

// executable is a checksum of the running program, read once.
var executable = sync.OnceValues(func() (string, error) {
	path := "/proc/self/exe" // what runs, also when another file has its name by now
	if _, err := os.Stat(path); err != nil {
		if path, err = os.Executable(); err != nil {
			return "", err
		}
	}
	return checksumOf(path)
})

// checksumOf returns a file's checksum.
func checksumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := xxhash.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s-%x", hex.EncodeToString(h.Sum(nil)), n), nil
}

// triesAgain reports whether Start gives a job that has failed for good a new budget of attempts, and says why or why not.
func (rt *Runtime) triesAgain(d *definition, have *jobEntry) bool {
	switch {
	case have == nil || have.Phase != PhaseFailed:
		return false
	case rt.cfg.RestartFailed || !bytes.Equal(have.Definition, d.text): // a change is tried in any case
		return true
	}
	now := rt.program()
	if now == "" || now == have.Program {
		rt.logger.Warn("the job failed for good in an earlier run and stays failed: neither its definition nor the program has changed since; `job restart` tries it again",
			"job", d.Name, "err", have.Reason)
		return false
	}
	rt.logger.Info("the job failed for good in an earlier run and is tried again: the program is another", "job", d.Name, "err", have.Reason)
	return true
}
