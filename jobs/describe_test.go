package jobs_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// settled has settings of every kind, and a place for what it keeps while it runs.
type settled struct {
	jobs.Sink
	Path   string
	Every  time.Duration
	Since  time.Time
	Names  []string
	Limits map[string]int
	Inner  struct{ Deep *int }
	Secret jobs.Secret
	Do     func()
	taken  int
}

func (*settled) Kind() string { return "settled" }

func (k *settled) describe() string {
	j := jobs.New("j")
	j.Nodes = append(j.Nodes, &jobs.Node{ID: "out-main", Kind: "output", Output: &jobs.OutputSpec{Name: "main", Sink: k}})
	return string(j.Describe())
}

// TestDescribe: every setting of a connector changes the description of its job, and nothing else does.
func TestDescribe(t *testing.T) {
	made := func(change func(*settled)) *settled {
		deep := 1
		k := &settled{Path: "p", Every: time.Second, Since: time.Unix(0, 0).UTC(), Names: []string{"a"}, Limits: map[string]int{"a": 1, "b": 2, "c": 3}, Do: func() {},
			Secret: jobs.NewSecret("${env:A}", func() (string, error) { return "canary", nil })}
		k.Inner.Deep = &deep
		change(k)
		return k
	}
	was := made(func(*settled) {}).describe()
	if strings.Contains(was, "canary") || strings.Contains(was, "0x") {
		t.Errorf("what is no setting stands in %s", was)
	}
	if is := made(func(k *settled) { k.taken = 7 }).describe(); is != was {
		t.Errorf("what it has taken stands in %s\nbefore: %s", is, was)
	}
	for name, change := range map[string]func(*settled){
		"a string":   func(k *settled) { k.Path = "q" },
		"a duration": func(k *settled) { k.Every++ },
		"a time":     func(k *settled) { k.Since = k.Since.Add(1) },
		"a list":     func(k *settled) { k.Names = append(k.Names, "b") },
		"two in one": func(k *settled) { k.Names = []string{"a b"} },
		"a map":      func(k *settled) { k.Limits["c"]++ },
		"a pointer":  func(k *settled) { *k.Inner.Deep++ },
		"a secret":   func(k *settled) { k.Secret = jobs.NewSecret("${env:B}", nil) },
		"a function": func(k *settled) { k.Do = nil },
	} {
		if is := made(change).describe(); is == was {
			t.Errorf("%s makes no difference to %s", name, is)
		}
	}
}
