package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
)

// The settings files, the nearest last so that it wins: sidestream/sidestream.yaml below the user's configuration directory
// ($XDG_CONFIG_HOME, ~/.config), and sidestream.yaml in the folder one is in.
//
//	data_dir: data            # a setting: the flag's name, with _ for -
//	context: lab              # the one that is asked if nothing else is said
//	contexts:
//	  lab: {socket: /srv/lab/run/admin.sock}
const settingsFile = "sidestream.yaml"

// userFile is the name of the file below the user's configuration directory.
func userFile() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "sidestream", settingsFile), err
}

// fromFile is a setting as a file has it.
type fromFile struct {
	value string
	where string // FILE:LINE
}

// given is what the files say.
type given struct {
	values   map[string]fromFile // by key
	contexts map[string]site
}

// readSettings reads the files.
func readSettings() (given, error) {
	g := given{values: map[string]fromFile{}, contexts: map[string]site{}}
	var names []string
	if name, err := userFile(); err == nil {
		names = append(names, name)
	}
	for _, name := range append(names, settingsFile) {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = g.read(name, b)
		}
		if err != nil {
			return g, withCode(exitConfig, err)
		}
	}
	return g, nil
}

// read takes up one file.
func (g *given) read(name string, b []byte) error {
	root, err := settingsNode(name, b)
	if err != nil || root == nil {
		return err
	}
	seen := map[string]bool{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		where := fmt.Sprintf("%s:%d", name, key.Line)
		switch {
		case seen[key.Value]:
			return fmt.Errorf("%s: %s is said twice; keep one", where, key.Value)
		case key.Value == "contexts":
			if err := g.readContexts(name, value); err != nil {
				return err
			}
		case !slices.ContainsFunc(settings, func(s setting) bool { return s.key() == key.Value }):
			return fmt.Errorf("%s: there is no setting %q; %s", where, key.Value, knownKeys(key.Value, settingKeys()))
		case value.Kind != yaml.ScalarNode:
			return fmt.Errorf("%s: %s is one value, such as a number or a name, no list and no object", where, key.Value)
		default:
			g.values[key.Value] = fromFile{value.Value, where}
		}
		seen[key.Value] = true
	}
	return nil
}

// settingsNode returns the object that a settings file is; nil of an empty one.
func settingsNode(name string, b []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		if e, ok := errors.AsType[*yaml.LoadError](err); ok {
			return nil, fmt.Errorf("%s:%d: this is no YAML: %s", name, e.Mark.Line, e.Message)
		}
		return nil, fmt.Errorf("%s: this is no YAML: %w", name, err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Tag == "!!null" {
		return nil, nil
	}
	if doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: a settings file is lines of \"name: value\", such as \"data_dir: data\"", name, doc.Content[0].Line)
	}
	return doc.Content[0], nil
}

func settingKeys() []string {
	names := []string{"contexts"}
	for _, s := range settings {
		names = append(names, s.key())
	}
	slices.Sort(names)
	return names
}

// knownKeys says what was meant by name, or names all there are.
func knownKeys(name string, all []string) string {
	if near := expr.Nearest(name, all); near != "" {
		return "did you mean " + near + "?"
	}
	if len(all) == 0 {
		return "there is none"
	}
	return "there are " + strings.Join(all, ", ")
}
