package airdata

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "cut the shipped sample from the four-year data anew")

// What is shipped: the first weeks, which have gaps, clean and foul days.
var (
	sampleFrom = time.Date(2013, 3, 1, 0, 0, 0, 0, beijing)
	sampleTo   = sampleFrom.AddDate(0, 0, 8*7)
)

// TestSampleIsCutFromTheWhole: the shipped readings are those of the four-year data, merged by time.
func TestSampleIsCutFromTheWhole(t *testing.T) {
	whole := filepath.Join(root(t), wholeFile)
	if _, err := os.Stat(whole); err != nil {
		t.Logf("nothing to compare with: the four-year data is not beside this clone: %v", err)
		return
	}
	var rs []Reading
	if err := ReadCSV(whole, func(r Reading) error {
		if r.TS >= sampleFrom.UnixMilli() && r.TS < sampleTo.UnixMilli() {
			rs = append(rs, r)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(rs, func(a, b Reading) int { return cmp.Compare(a.TS, b.TS) })
	var want []byte
	for _, r := range rs {
		want = r.AppendLine(want)
	}
	path := filepath.Join(root(t), sampleFile)
	if *update {
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(want); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d readings, %d bytes, %d compressed", len(rs), len(want), b.Len())
	}
	var got []byte
	if err := unzipped(path, func(r io.Reader) (err error) {
		got, err = io.ReadAll(r)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the four-year data has: %d bytes, want %d; cut it anew with -update", sampleFile, len(got), len(want))
	}
}

// TestSampleHasSomethingToShow: gaps, exceedances and alerts.
func TestSampleHasSomethingToShow(t *testing.T) {
	want := Expect(t, Sample(t))
	for _, p := range Pollutants {
		if len(want.Windows[p]) < 12*50 {
			t.Errorf("%s: %d windows", p, len(want.Windows[p]))
		}
		t.Logf("%s: %d windows, %d gaps", p, len(want.Windows[p]), want.Dead[p])
	}
	if len(want.Alerts) < 5 || want.Dead["no2"] != 22 {
		t.Errorf("%d alerts, %d gaps of NO2", len(want.Alerts), want.Dead["no2"])
	}
	t.Logf("%d alerts, such as %s", len(want.Alerts), want.Alerts[0])
}

func TestCompare(t *testing.T) {
	a := []string{`{"s":"x","n":1,"mean":0.1}`, `{"s":"y","n":2,"mean":0.3}`}
	b := []string{`{"mean":0.30000000000000004,"s":"y","n":2.0}`, `{"s":"x","n":1,"mean":0.1}`}
	tests := []struct {
		name      string
		got, want []string
		same      bool
	}{
		{"order of lines and of fields, last digits", a, b, true},
		{"a line is missing", a[:1], b, false},
		{"a line is there twice", append(slices.Clone(a), a[0]), b, false},
		{"a number is another", []string{`{"s":"x","n":1,"mean":0.1000001}`, a[1]}, b, false},
		{"a word is another", []string{`{"s":"z","n":1,"mean":0.1}`, a[1]}, b, false},
		{"no lines", nil, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			probe := &failures{TB: t}
			Compare(probe, "probe", tt.got, tt.want)
			if probe.failed == tt.same {
				t.Errorf("found a difference: %v", probe.failed)
			}
		})
	}
}

// failures takes Errorf down instead of failing the test.
type failures struct {
	testing.TB
	failed bool
}

func (f *failures) Errorf(string, ...any) { f.failed = true }
