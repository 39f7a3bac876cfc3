package all

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs/connector"
)

// TestRegistry: every connector describes itself wholly, its defaults can be parsed, and with what is required it is made.
func TestRegistry(t *testing.T) {
	reg := Registry()
	check := func(name, doc string, fields []connector.Field, make func(connector.Values) error) {
		t.Run(name, func(t *testing.T) {
			if doc == "" {
				t.Error("no doc")
			}
			given := map[string]any{}
			var names []string
			for _, f := range fields {
				if !regexp.MustCompile(`^[a-z][a-z_]*$`).MatchString(f.Name) || slices.Contains(names, f.Name) {
					t.Errorf("the name %q is not one, or is there twice", f.Name)
				}
				names = append(names, f.Name)
				if !strings.HasSuffix(f.Doc, ".") {
					t.Errorf("%s: doc %q is no sentence", f.Name, f.Doc)
				}
				if (f.Kind == connector.Enum) != (len(f.Enum) > 0) {
					t.Errorf("%s: choices %v of a %s", f.Name, f.Enum, f.Kind)
				}
				if f.Default != "" {
					if _, err := f.Parse(f.Default); err != nil {
						t.Errorf("default: %v", err)
					}
				}
				if f.Required {
					given[f.Name] = "x"
				}
			}
			v, errs := connector.Complete(fields, given)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			if err := make(v); err != nil {
				t.Error(err)
			}
		})
	}
	for _, k := range reg.Sources {
		check("source "+k.Name, k.Doc, k.Fields, func(v connector.Values) error {
			s, err := k.New(v, connector.LoadEnv{})
			if err == nil && s.Kind() != k.Name {
				t.Errorf("%s makes a %s", k.Name, s.Kind())
			}
			return err
		})
		if got, ok := reg.Source(k.Name); !ok || got.Name != k.Name {
			t.Errorf("%s is not found", k.Name)
		}
	}
	for _, k := range reg.Sinks {
		check("sink "+k.Name, k.Doc, k.Fields, func(v connector.Values) error {
			s, err := k.New(v, connector.LoadEnv{})
			if err == nil && s.Kind() != k.Name {
				t.Errorf("%s makes a %s", k.Name, s.Kind())
			}
			return err
		})
		if got, ok := reg.Sink(k.Name); !ok || got.Name != k.Name {
			t.Errorf("%s is not found", k.Name)
		}
	}
	if _, ok := reg.Source("none"); ok {
		t.Error("there is a source called none")
	}
	if _, ok := reg.Sink("none"); ok {
		t.Error("there is a sink called none")
	}
}
