package spec

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs/connector/all"
)

// validate is as much of JSON Schema as Schema uses; a word that it does not know is an error.
func validate(s map[string]any, v any, at string) error {
	for word, arg := range s {
		if err := validateWord(s, word, arg, v, at); err != nil {
			return err
		}
	}
	return nil
}

func validateWord(s map[string]any, word string, arg, v any, at string) error {
	m, isMap := v.(map[string]any)
	number, isNumber := v.(float64)
	text, isText := v.(string)
	holds := true
	switch word {
	case "$schema", "title", "description", "default":
	case "type":
		if one, ok := arg.(string); ok {
			arg = []any{one}
		}
		holds = slices.ContainsFunc(arg.([]any), func(t any) bool { return isOf(v, t.(string)) })
	case "const":
		holds = reflect.DeepEqual(arg, v)
	case "enum":
		holds = slices.Contains(arg.([]any), v)
	case "pattern":
		holds = !isText || regexp.MustCompile(arg.(string)).MatchString(text)
	case "minimum":
		holds = !isNumber || number >= arg.(float64)
	case "maximum":
		holds = !isNumber || number <= arg.(float64)
	case "minItems":
		list, isList := v.([]any)
		holds = !isList || len(list) >= int(arg.(float64))
	case "minProperties":
		holds = !isMap || len(m) >= int(arg.(float64))
	case "maxProperties":
		holds = !isMap || len(m) <= int(arg.(float64))
	case "required":
		for _, name := range arg.([]any) {
			_, has := m[name.(string)]
			holds = holds && (!isMap || has)
		}
	case "anyOf", "oneOf":
		n := 0
		for _, other := range arg.([]any) {
			if validate(other.(map[string]any), v, at) == nil {
				n++
			}
		}
		holds = n == 1 || n > 1 && word == "anyOf"
	case "propertyNames":
		for name := range m {
			if err := validate(arg.(map[string]any), name, at+"."+name); err != nil {
				return err
			}
		}
	case "items":
		list, _ := v.([]any)
		for i, x := range list {
			if err := validate(arg.(map[string]any), x, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case "properties", "additionalProperties":
		return validateFields(s, word, m, at)
	default:
		return fmt.Errorf("%s: the test does not know the word %s", at, word)
	}
	if !holds {
		return fmt.Errorf("%s: %v is not %s %v", at, v, word, arg)
	}
	return nil
}

func validateFields(s map[string]any, word string, m map[string]any, at string) error {
	known, _ := s["properties"].(map[string]any)
	for name, x := range m {
		of, is := known[name]
		if word == "additionalProperties" {
			if of = s[word]; is {
				continue
			} else if of == false {
				return fmt.Errorf("%s: there is no field %s", at, name)
			}
		}
		if schema, ok := of.(map[string]any); ok {
			if err := validate(schema, x, at+"."+name); err != nil {
				return err
			}
		}
	}
	return nil
}

func isOf(v any, typ string) bool {
	switch x := v.(type) {
	case nil:
		return typ == "null"
	case bool:
		return typ == "boolean"
	case string:
		return typ == "string"
	case float64:
		return typ == "number" || typ == "integer" && x == float64(int64(x))
	case []any:
		return typ == "array"
	}
	return typ == "object"
}

// validateYAML checks every document of a text against the schema.
func validateYAML(t *testing.T, src string) error {
	t.Helper()
	return validateWith(t, Schema(all.Registry()), src)
}

func validateWith(t *testing.T, by []byte, src string) error {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal(by, &schema); err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split(src, "\n---\n") {
		var v, plain any
		if err := yaml.Unmarshal([]byte(doc), &v); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &plain); err != nil {
			t.Fatal(err)
		}
		if err := validate(schema, plain, "job"); err != nil {
			return err
		}
	}
	return nil
}

func TestSchemaTakesTheExamples(t *testing.T) {
	names := []string{"testdata/temperature.yaml"}
	for _, dir := range []string{"../../examples", "../../bench"} {
		if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if isDefinition(path) {
				names = append(names, path)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if len(names) < 15 {
		t.Fatalf("%d examples", len(names))
	}
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := validateYAML(t, string(src)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSchemaAndLoader: what of the form the loader takes or refuses, the schema does too.
func TestSchemaAndLoader(t *testing.T) {
	const main = "outputs: {main: {stdout: {}}}\n"
	file := func(settings string) string { return "  file: {path: x, " + settings + "}\n" }
	tests := []struct {
		name, src string
		ok        bool
	}{
		{"plain", small(okSource, main), true},
		{"a word of the environment", small(file(`format: "${env:FORMAT:-lines}"`), main), true},
		{"a number of the environment", small(okSource, "parallelism: ${env:N:-3}\n"+main), true},
		{"a choice of the environment", small(okSource, "delivery: ${env:D:-at_least_once}\n"+main), true},
		{"a wrong word", small(file("format: jsonlines"), main), false},
		{"as many subtasks as may be", small(okSource, "parallelism: 128\n"+main), true},
		{"too many subtasks", small(okSource, "parallelism: 129\n"+main), false},
		{"no subtasks", small(okSource, "parallelism: 0\n"+main), false},
		{"too many of a step", small(okSource, "steps: [{map: value.a, parallelism: 129}]\n"+main), false},
		{"a step with its name", small(okSource, "steps: [{map: value.a, id: a, parallelism: 2}]\n"+main), true},
		{"a step of two kinds", small(okSource, "steps: [{map: value.a, filter: {if: 'true'}}]\n"+main), false},
		{"a step of none", small(okSource, "steps: [{id: a}]\n"+main), false},
		{"text of a topic", small("  bus: t\n  decode: text\n", main), true},
		{"two sources", small("  bus: t\n"+okSource, main), false},
		{"no source", small("  id: a\n", main), false},
		{"durations", small(okSource+"  event_time: {from: value.t, max_out_of_orderness: 1h30m, idle_after: 0}\n", main), true},
		{"a duration without unit", small(okSource+"  event_time: {from: value.t, idle_after: 5}\n", main), false},
		{"too many partitions", small(okSource, "topics: {t: {partitions: 129}}\n"+main), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := LoadBytes(testConfig(), "f", []byte(tt.src))
			if loads := len(problems) == 0; loads != tt.ok {
				t.Errorf("the loader: %v", problems)
			}
			if err := validateYAML(t, tt.src); (err == nil) != tt.ok {
				t.Errorf("the schema: %v", err)
			}
		})
	}
}

// ofForm is what the loader says of mistakes that a schema can tell. It does not know names, nor that a field is given twice.
var ofForm = regexp.MustCompile(`has no field \S|there is no step|not in this version| needs \S+$| it does not say |it names both|it is both|is required$|there is none$|there is no field in it$` +
	`|want (fields|settings|a list|one of|an aggregate|a word|an expression), not |is not one of |want (1|a whole number|a duration|a size)\b|(on_error|start): want|name "|is not an aggregate$` +
	`|want a reference to the secret|a default is the secret itself`)

// beyondSchema is what is of the form and still not for a schema: how large a number is that stands in text, and what whoever
// reads YAML has merged already.
var beyondSchema = []string{"huge-duration.yaml", "huge-number.yaml", "huge-size.yaml", "merge-key.yaml"}

// TestSchemaRefusesBadFiles: what of the form is wrong in the bad files, the schema refuses too.
func TestSchemaRefusesBadFiles(t *testing.T) {
	t.Chdir("testdata/bad")
	n := 0
	for _, name := range bad(t) {
		if filepath.Ext(name) == "" || slices.Contains(beyondSchema, name) {
			continue // the former are right files that do not go together
		}
		_, problems := Load(badConfig(), name)
		i := slices.IndexFunc(problems, func(p Problem) bool { return ofForm.MatchString(p.Msg) && !strings.Contains(p.Msg, "not YAML") })
		if i < 0 {
			continue
		}
		n++
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if validateYAML(t, strings.TrimPrefix(string(src), "\uFEFF")) == nil {
			t.Errorf("the schema takes what is wrong by its form:\n%s", problems[i])
		}
	}
	if n < badFiles {
		t.Errorf("%d files are wrong by their form, want at least %d", n, badFiles)
	}
}
