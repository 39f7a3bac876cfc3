package spec

import (
	"encoding/json"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
)

// object is one JSON object of a schema.
type object = map[string]any

// Schema returns the JSON Schema of a definition with the connectors of reg, made from the tables that the loader
// checks with. An editor that knows it completes and marks fields; only the loader knows expressions.
func Schema(reg connector.Registry) []byte {
	steps := properties(stepFields)
	for name, s := range map[string]object{"map": exprOrFields(), "key_by": exprOrFields(), "set": fieldsOf(Expression)} {
		steps[name] = withDoc(s, docOf(stepFields, name))
	}
	side := steps["side"].(object)["properties"].(object)
	side["map"] = withDoc(exprOrFields(), docOf(sideFields, "map"))
	window := steps["window"].(object)["properties"].(object)
	window["aggregate"] = withDoc(fieldsOf(Aggregate), docOf(windowFields, "aggregate"))

	job := properties(jobFields)
	job["version"] = object{"const": 1}
	job["source"] = sourceSchema(reg)
	job["steps"] = object{"type": "array", "description": docOf(jobFields, "steps"),
		"items": object{"type": "object", "properties": steps, "additionalProperties": false, "oneOf": kindsOf(stepKinds)}}
	job["outputs"] = named(outputSchema(reg), docOf(jobFields, "outputs"))
	job["outputs"].(object)["minProperties"] = 1
	job["topics"] = named(blockSchema(topicFields), docOf(jobFields, "topics"))
	root := blockSchema(jobFields)
	root["properties"] = job
	root["$schema"], root["title"] = "https://json-schema.org/draft/2020-12/schema", "A Sidestream job"
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("spec: the schema is no JSON: " + err.Error()) // it holds strings, numbers and maps only
	}
	return append(b, '\n')
}

// envPattern is what stands for a word or a number that the environment has, or a number in quotes.
const envPattern = `\$\{env:|^[0-9]+$`

// oneOf is one of a few words, or what the environment says.
func oneOf(words []string) object {
	return object{"anyOf": []object{{"enum": words}, {"type": "string", "pattern": `\$\{env:`}}}
}

// namePattern is what jobs.CheckName wants.
const namePattern = `^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`

// nameSchema is of a name, or what the environment says. A name of digits alone is a number to YAML.
func nameSchema() object {
	return object{"type": []string{"string", "integer"}, "minimum": 0, "pattern": `\$\{env:|` + namePattern}
}

// named is of fields with names of their own.
func named(s object, doc string) object {
	return object{"type": "object", "description": doc, "propertyNames": object{"pattern": namePattern}, "additionalProperties": s}
}

func durationSchema() object {
	return object{"type": []string{"string", "integer"}, "maximum": 0, "pattern": `\$\{env:|^([0-9.]+(ns|us|µs|ms|s|m|h|d))+$|^0$`}
}

func bytesSchema(least int) object {
	return object{"type": []string{"integer", "string"}, "minimum": least, "pattern": `\$\{env:|^[0-9_]+ *([KMGT]iB|[kKMGT]?B)?$`}
}

func withDoc(s object, doc string) object {
	s["description"] = doc
	return s
}

func docOf(table []Field, name string) string {
	for _, f := range table {
		if f.Name == name {
			return f.Doc
		}
	}
	return ""
}

func exprOrFields() object {
	return object{"anyOf": []object{fieldSchema(Field{Shape: Expression}), fieldsOf(Expression)}}
}

func fieldsOf(s Shape) object {
	return object{"type": "object", "minProperties": 1, "additionalProperties": fieldSchema(Field{Shape: s})}
}

func properties(table []Field) object {
	p := object{}
	for _, f := range table {
		p[f.Name] = fieldSchema(f)
	}
	return p
}

func blockSchema(table []Field) object {
	s := object{"type": "object", "properties": properties(table), "additionalProperties": false}
	var required []string
	for _, f := range table {
		if f.Required {
			required = append(required, f.Name)
		}
	}
	if required != nil {
		s["required"] = required
	}
	return s
}

func fieldSchema(f Field) object {
	var s object
	switch f.Shape {
	case Expression:
		s = object{"type": []string{"string", "number", "boolean"}}
	case Aggregate:
		s = object{"type": "string", "pattern": `^\s*(count|sum|mean|min|max|distinct)\s*\(`}
	case Name:
		s = nameSchema()
	case Whole:
		s = object{"type": []string{"integer", "string"}, "minimum": 1, "maximum": jobs.KeyGroups, "pattern": envPattern}
	case Duration:
		s = durationSchema()
	case Bytes:
		s = bytesSchema(1)
	case Choice:
		s = oneOf(f.Choices)
	case Block:
		s = blockSchema(f.Fields)
	default:
		s = object{}
	}
	if f.Doc != "" {
		s["description"] = f.Doc
	}
	return s
}

// settingsSchema is that of a connector's settings; a sink's may be inherited from the source.
func settingsSchema(doc string, fields []connector.Field, sink bool) object {
	p, required := object{}, []string{}
	for _, f := range fields {
		s := object{"description": f.Doc}
		switch f.Kind {
		case connector.Int:
			s = withDoc(object{"type": []string{"integer", "string"}, "minimum": 0, "pattern": `\$\{env:|^[0-9_]+$`}, f.Doc)
		case connector.Bytes:
			s = withDoc(bytesSchema(0), f.Doc)
		case connector.Duration:
			s = withDoc(durationSchema(), f.Doc)
		case connector.Bool:
			s["type"], s["pattern"] = []string{"boolean", "string"}, `\$\{env:|^(true|false)$`
		case connector.List:
			s["type"], s["items"] = []string{"array", "string"}, object{"type": "string"}
		case connector.Secret:
			s["type"], s["pattern"] = "string", `^\$\{(file:[^}]+|env:[^}:]+)\}$`
		case connector.Enum:
			s = withDoc(oneOf(f.Enum), f.Doc)
		default:
			s["type"] = "string"
		}
		if f.Default != "" {
			s["default"] = f.Default
		}
		if p[f.Name] = s; f.Required && !(f.Inherit && sink) {
			required = append(required, f.Name)
		}
	}
	return object{"type": []string{"object", "null"}, "description": doc, "properties": p, "required": required, "additionalProperties": false}
}

// kindsOf wants exactly one of several fields.
func kindsOf(names []string) []object {
	var kinds []object
	for _, n := range names {
		kinds = append(kinds, object{"required": []string{n}})
	}
	return kinds
}

// timePattern is a time as RFC 3339 has it.
const timePattern = `[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})`

func sourceSchema(reg connector.Registry) object {
	s := blockSchema(sourceFields)
	p := s["properties"].(object)
	p["on_error"] = withDoc(object{"anyOf": []object{oneOf([]string{"fail", "skip"}),
		{"type": "object", "properties": object{"to": object{"type": "string"}}, "required": []string{"to"}, "additionalProperties": false}}}, docOf(sourceFields, "on_error"))
	bus := blockSchema(busSourceFields)
	bus["properties"].(object)["start"] = withDoc(object{"type": []string{"string", "integer"}, "minimum": 0,
		"pattern": `\$\{env:|^(earliest|beginning|latest|end|(offset:)?[0-9]+|-([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+|` + timePattern + `)$`}, docOf(busSourceFields, "start"))
	p["bus"] = object{"anyOf": []object{nameSchema(), bus}}
	ends := []string{"bus"}
	for _, k := range reg.Sources {
		p[k.Name] = settingsSchema(k.Doc, k.Fields, false)
		ends = append(ends, k.Name)
	}
	s["oneOf"] = kindsOf(ends)
	return s
}

func outputSchema(reg connector.Registry) object {
	p := object{"bus": object{"anyOf": []object{nameSchema(), blockSchema(busOutputFields)}}}
	for _, k := range reg.Sinks {
		p[k.Name] = settingsSchema(k.Doc, k.Fields, true)
	}
	return object{"type": "object", "properties": p, "additionalProperties": false, "minProperties": 1, "maxProperties": 1}
}
