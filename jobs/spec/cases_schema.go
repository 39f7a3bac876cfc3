package spec

import (
	"encoding/json"

	"github.com/sidestream-dev/sidestream/jobs"
)

// CaseSchema returns the JSON Schema of a file of cases, made from the tables that its reader checks with.
func CaseSchema() []byte {
	text := object{"type": "string"}
	scalar := object{"type": []string{"string", "number", "boolean"}}
	when := object{"type": []string{"string", "integer"}}
	words := object{"type": "object", "additionalProperties": scalar}
	key := object{"type": []string{"string", "number", "boolean", "object", "array"}}
	moment := told(momentFields, map[string]object{
		"value": {}, "text": scalar, "from_file": text, "key": key, "time": when, "headers": words, "topic": scalar,
		"partition": {"type": "integer", "minimum": 0}, "watermark": when, "idle": {"const": true}, "to": text,
	})
	moment["oneOf"] = kindsOf([]string{"value", "text", "from_file", "watermark", "idle"})
	record := told(recordFields, map[string]object{
		"value": {}, "has": {}, "text": scalar, "from_file": text, "key": {}, "time": when, "headers": words,
	})
	record["minProperties"] = 1
	records := object{"type": "array", "items": record}
	ordered := told(orderFields, map[string]object{"any_order": records, "contains": records})
	ordered["oneOf"] = kindsOf([]string{"any_order", "contains"})
	one := told(caseFields, map[string]object{
		"name": scalar, "input": {"type": "array", "items": moment}, "end": {"type": "boolean"},
		"parallelism": {"type": "integer", "minimum": 1, "maximum": jobs.KeyGroups}, "fails": scalar,
		"output": {"type": "object", "additionalProperties": object{"anyOf": []object{records, ordered}}},
	})
	one["anyOf"] = kindsOf([]string{"output", "fails"})
	root := told(suiteFields, map[string]object{
		"version": {"const": 1}, "jobs": {"type": "array", "minItems": 1, "items": text}, "env": words,
		"cases": {"type": "array", "minItems": 1, "items": one},
	})
	root["$schema"], root["title"] = "https://json-schema.org/draft/2020-12/schema", "Cases of Sidestream jobs"
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("spec: the schema of cases is no JSON: " + err.Error()) // it holds strings, numbers and maps only
	}
	return append(b, '\n')
}

// told is the schema of a block with the fields of a table, of which shapes has the schemas.
func told(table []Field, shapes map[string]object) object {
	s := blockSchema(table)
	p := object{}
	for _, f := range table {
		field := object{}
		for word, arg := range shapes[f.Name] { // a copy: several fields may share one
			field[word] = arg
		}
		p[f.Name] = withDoc(field, f.Doc)
	}
	s["properties"] = p
	return s
}
