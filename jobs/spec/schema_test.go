package spec

import (
	"encoding/json"
	"fmt"
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
	names, err := filepath.Glob("../../examples/air/*/*.yaml")
	names = slices.DeleteFunc(names, IsCaseFile)
	if err != nil || len(names) < 12 {
		t.Fatalf("%d examples, %v", len(names), err)
	}
	for _, name := range append(names, "testdata/temperature.yaml") {
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
