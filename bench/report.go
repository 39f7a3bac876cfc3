package bench

import (
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"
)

// Figure is one measured number.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// Ratio is a figure over a reference of the same run.
type Ratio struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Wanted string  `json:"wanted,omitempty"` // such as ">= 0.80"
	OK     bool    `json:"ok"`
}

// Report is what one measurement found.
type Report struct {
	Name    string   `json:"name"`
	About   string   `json:"about"` // what was done, in a sentence
	Machine string   `json:"machine"`
	Disk    string   `json:"disk,omitempty"` // the file system under the data
	Figures []Figure `json:"figures"`
	Ratios  []Ratio  `json:"ratios,omitempty"`
}

func newReport(name, about, dir string) *Report {
	return &Report{Name: name, About: about, Disk: fileSystem(dir),
		Machine: fmt.Sprintf("%s/%s, %d CPUs, %s", goruntime.GOOS, goruntime.GOARCH, goruntime.NumCPU(), goruntime.Version())}
}

func (r *Report) figure(name string, value float64, unit string) {
	r.Figures = append(r.Figures, Figure{name, value, unit})
}

// atLeast adds a ratio that should not be below want.
func (r *Report) atLeast(name string, value, want float64) {
	r.Ratios = append(r.Ratios, Ratio{name, value, fmt.Sprintf(">= %g", want), value >= want})
}

// atMost adds a figure that should not be above want.
func (r *Report) atMost(name string, value, want float64) {
	r.Ratios = append(r.Ratios, Ratio{name, value, fmt.Sprintf("<= %g", want), value <= want})
}

// cpuTime is what this process has used, user and system.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fileSystem names the file system that a path lies on, as /proc/mounts has it.
func fileSystem(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	b, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return ""
	}
	best, what := "", ""
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || !strings.HasPrefix(path+"/", strings.TrimSuffix(f[1], "/")+"/") || len(f[1]) < len(best) {
			continue
		}
		best, what = f[1], f[2]
	}
	return what
}
