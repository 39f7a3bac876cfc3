// Package airdata prepares hourly air-quality readings of twelve stations for tests, and says by a program of its own what
// the jobs of the example must make of them.
//
//	d := airdata.Sample(t)          // some weeks, shipped with the repository
//	d, ok := airdata.Whole(t)       // four years, where ../shared/data has them beside the repository
//	d := airdata.Asked(t)           // the sample; with AIR_WHOLE=1 the whole, or else the sample, which it says
//	d.Dir                           // one JSON-lines file for each pollutant and station: pm25-Aotizhongxin.jsonl
//	want := airdata.Expect(t, d)    // reference.go; none of our other packages is used
//	airdata.Compare(t, "pm25", got, want.Windows["pm25"])
//	d.Produce(t, airdata.Broker(t), prefix, 4)  // kafka.go; five topics
//
// A line is {"station":"Dongsi","pollutant":"pm25","ts":1362067200000,"value":9.0}. ts is the beginning of the hour in
// milliseconds since the Unix epoch; the data has Beijing's clock, taken as UTC+8. A gap's value is "NA".
//
// The prepared files are made once and kept in the system's folder for temporary files.
package airdata

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Pollutants are what a job each looks after, by the names of their topics.
var Pollutants = [...]string{"pm25", "so2", "no2", "co", "o3"}

// columns are the same in the data's header.
var columns = [...]string{"PM2.5", "SO2", "NO2", "CO", "O3"}

// beijing is how the data's clock is taken.
var beijing = time.FixedZone("UTC+8", 8*3600)

const (
	version    = 1 // of the prepared files; another one is another folder
	sampleFile = "examples/air/data/readings.jsonl.gz"
	wholeFile  = "../shared/data/sensors-prsa-beijing/prsa_12stations_20130301-20170228.csv.gz"
)

// Data is a folder of prepared files.
type Data struct {
	Name string // "sample" or "whole"
	Dir  string
}

// Reading is one line of a prepared file.
type Reading struct {
	Station   string
	Pollutant string
	TS        int64  // milliseconds
	Value     string // as it stood in the data; "" is a gap
}

// AppendLine appends the reading as JSON, with a line end.
func (r Reading) AppendLine(dst []byte) []byte {
	v := r.Value
	if v == "" {
		v = `"NA"`
	}
	return fmt.Appendf(dst, `{"station":%q,"pollutant":%q,"ts":%d,"value":%s}`+"\n", r.Station, r.Pollutant, r.TS, v)
}

// Glob matches the files of a pollutant.
func (d Data) Glob(pollutant string) string { return filepath.Join(d.Dir, pollutant+"-*.jsonl") }

// Merged returns the lines of a pollutant in the order of time, and of stations within an hour, each with its station.
func (d Data) Merged(tb testing.TB, pollutant string) (stations []string, lines [][]byte) {
	tb.Helper()
	type line struct {
		ts      int64
		station string
		text    []byte
	}
	var all []line
	d.each(tb, pollutant, func(text []byte) {
		var r struct {
			Station string
			TS      int64
		}
		if err := json.Unmarshal(text, &r); err != nil {
			tb.Fatal(err)
		}
		all = append(all, line{r.TS, r.Station, bytes.Clone(text)})
	})
	slices.SortStableFunc(all, func(a, b line) int { return cmp.Compare(a.ts, b.ts) })
	for _, l := range all {
		stations, lines = append(stations, l.station), append(lines, l.text)
	}
	return stations, lines
}

// each calls fn with every line of a pollutant's files, station by station; fn must not keep it.
func (d Data) each(tb testing.TB, pollutant string, fn func(line []byte)) {
	tb.Helper()
	paths, err := filepath.Glob(d.Glob(pollutant))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("airdata: no files %s: %v", d.Glob(pollutant), err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			tb.Fatal(err)
		}
		for l := range bytes.Lines(b) {
			fn(bytes.TrimSuffix(l, []byte("\n")))
		}
	}
}

// Sample prepares the readings that the repository ships.
func Sample(tb testing.TB) Data {
	tb.Helper()
	return prepared(tb, "sample", filepath.Join(root(tb), sampleFile), readSample)
}

// Whole prepares all four years. Where they are not beside the repository it says so, and ok is false.
func Whole(tb testing.TB) (d Data, ok bool) {
	tb.Helper()
	path := filepath.Join(root(tb), wholeFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		tb.Logf("the four-year data is not there (%s, from the repository's root): the shipped sample stands for it", wholeFile)
		return Data{}, false
	}
	return prepared(tb, "whole", path, ReadCSV), true
}

// Asked is Sample, unless AIR_WHOLE in the environment asks for Whole and there is one.
func Asked(tb testing.TB) Data {
	tb.Helper()
	if os.Getenv("AIR_WHOLE") != "" {
		if d, ok := Whole(tb); ok {
			return d
		}
	}
	return Sample(tb)
}

// root finds the repository from the folder of the test that runs.
func root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			tb.Fatal("airdata: no go.mod above the test's folder")
		}
		dir = up
	}
}

// prepared returns the folder made from path, and makes it if there is none. Several processes may do so at once: the
// first to be ready wins.
func prepared(tb testing.TB, name, path string, read func(path string, fn func(Reading) error) error) Data {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("sidestream-air-%d-%d-%08x", version, os.Getuid(), crc32.ChecksumIEEE(b)))
	if _, err := os.Stat(dir); err == nil {
		return Data{name, dir}
	}
	tmp, err := os.MkdirTemp(os.TempDir(), "sidestream-air-*")
	if err != nil {
		tb.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	if err := write(tmp, path, read); err != nil {
		tb.Fatalf("airdata: prepare %s: %v", name, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		if _, serr := os.Stat(dir); serr != nil {
			tb.Fatal(err)
		}
	}
	return Data{name, dir}
}

// write makes one file for each pollutant and station below dir.
func write(dir, path string, read func(path string, fn func(Reading) error) error) (err error) {
	type file struct {
		f *os.File
		w *bufio.Writer
	}
	files := map[string]file{}
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.w.Flush(), f.f.Close())
		}
	}()
	var buf []byte
	return read(path, func(r Reading) error {
		name := r.Pollutant + "-" + r.Station + ".jsonl"
		f, ok := files[name]
		if !ok {
			o, err := os.Create(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			f = file{o, bufio.NewWriterSize(o, 64<<10)}
			files[name] = f
		}
		buf = r.AppendLine(buf[:0])
		_, err := f.w.Write(buf)
		return err
	})
}

// ReadCSV calls fn with five readings for every row of the published data, station by station.
func ReadCSV(path string, fn func(Reading) error) error {
	return unzipped(path, func(r io.Reader) error {
		rows := csv.NewReader(r)
		rows.ReuseRecord = true
		header, err := rows.Read()
		if err != nil {
			return err
		}
		at := map[string]int{}
		for i, name := range header {
			at[name] = i
		}
		clock := [...]int{at["year"], at["month"], at["day"], at["hour"]}
		for {
			row, err := rows.Read()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			var t [4]int
			for i, c := range clock {
				if _, err := fmt.Sscan(row[c], &t[i]); err != nil {
					return fmt.Errorf("row %q: %w", row, err)
				}
			}
			ts := time.Date(t[0], time.Month(t[1]), t[2], t[3], 0, 0, 0, beijing).UnixMilli()
			for i, p := range Pollutants {
				v := row[at[columns[i]]]
				if v == "NA" {
					v = ""
				}
				if err := fn(Reading{row[at["station"]], p, ts, v}); err != nil {
					return err
				}
			}
		}
	})
}

// readSample calls fn with what the shipped file has.
func readSample(path string, fn func(Reading) error) error {
	return unzipped(path, func(r io.Reader) error {
		for lines := bufio.NewScanner(r); ; {
			if !lines.Scan() {
				return lines.Err()
			}
			var v struct {
				Station, Pollutant string
				TS                 int64
				Value              json.RawMessage
			}
			if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
				return err
			}
			text := string(v.Value)
			if text == `"NA"` {
				text = ""
			}
			if err := fn(Reading{v.Station, v.Pollutant, v.TS, text}); err != nil {
				return err
			}
		}
	})
}

func unzipped(path string, fn func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	return fn(bufio.NewReaderSize(z, 64<<10))
}
