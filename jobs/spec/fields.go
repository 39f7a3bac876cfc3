package spec

// Shape says how a field is written.
type Shape string

// The shapes of fields.
const (
	Expression Shape = "expression" // of package expr
	Aggregate  Shape = "aggregate"  // count(), sum(x), …
	Name       Shape = "name"       // of a job, a step, an output, a topic
	Whole      Shape = "int"
	Duration   Shape = "duration" // 250ms, 5s, 1h30m, 1d
	Bytes      Shape = "bytes"    // 4096, 64KiB, 1GB
	Choice     Shape = "choice"   // one of Field.Choices
	Block      Shape = "block"    // fields of its own, in Field.Fields
	Other      Shape = "other"    // what Field.Doc says; the schema has it by hand
)

// Field describes one field of the language.
type Field struct {
	Name     string
	Shape    Shape
	Doc      string // one sentence, without the name
	Required bool
	Choices  []string
	Fields   []Field
}

func fieldNames(table []Field) []string {
	names := make([]string, len(table))
	for i, f := range table {
		names[i] = f.Name
	}
	return names
}

var retentionFields = []Field{
	{Name: "max_bytes", Shape: Bytes, Doc: "How much is kept at most; 1GiB if not given."},
	{Name: "max_age", Shape: Duration, Doc: "How long a record is kept at most."},
}

// onFull is what a full topic may do.
var onFull = []string{"block", dropOldest}

var topicFields = []Field{
	{Name: "partitions", Shape: Whole, Doc: "How many partitions the topic has, 1 to 128; 1 if not given."},
	{Name: "retention", Shape: Block, Fields: retentionFields, Doc: "What is kept of records that every subscription has passed."},
	{Name: "limit", Shape: Bytes, Doc: "How far a reader may fall behind; 1GiB if not given."},
	{Name: "on_full", Shape: Choice, Choices: onFull, Doc: "What a full topic does: hold its writers back (block, if not given), or let the reader that is so far behind lose what is oldest (drop_oldest)."},
}

var busSourceFields = []Field{
	{Name: "topic", Shape: Name, Required: true, Doc: "The topic to read."},
	{Name: "start", Shape: Other, Doc: "Where a new subscription begins: earliest (if not given), latest, an offset, a time of events such as 2026-01-31T08:00:00Z or 2026-01-31, or -2h or -10d for so long before the job is added."},
	{Name: "idle_after", Shape: Duration, Doc: "A partition without records for that long holds no window back."},
}

var busOutputFields = append([]Field{
	{Name: "topic", Shape: Name, Required: true, Doc: "The topic to write."},
	{Name: "key", Shape: Expression, Doc: "The key of what is written; the record's key if not given."},
}, topicFields...)

var eventTimeFields = []Field{
	{Name: "from", Shape: Expression, Required: true, Doc: "When the record happened: a number, or RFC 3339 text."},
	{Name: "unit", Shape: Choice, Choices: []string{"s", "ms", "us", "ns"}, Doc: "What a number counts since 1970; ms if not given."},
	{Name: "max_out_of_orderness", Shape: Duration, Doc: "How far behind the latest record others may come; 0s if not given."},
	{Name: "idle_after", Shape: Duration, Doc: "A partition without records for that long holds no window back."},
}

var sourceFields = []Field{
	{Name: "decode", Shape: Choice, Choices: []string{"json", "text"}, Doc: "What the records are; json if not given. On a bus source only text, for records that are no JSON."},
	{Name: "event_time", Shape: Block, Fields: eventTimeFields, Doc: "When records happened; without it as the source says."},
	{Name: "on_error", Shape: Other, Doc: "What becomes of a record that cannot be decoded or makes a step fail: fail (if not given), skip, or {to: OUTPUT}."},
	{Name: "parallelism", Shape: Whole, Doc: "How many subtasks read; the job's number if not given."},
	{Name: "id", Shape: Name, Doc: "The source's name in the job."},
}

var jobFields = []Field{
	{Name: "version", Shape: Whole, Required: true, Doc: "The version of the language: 1."},
	{Name: "job", Shape: Name, Required: true, Doc: "The job's name."},
	{Name: "source", Shape: Block, Required: true, Doc: "Where records come from."},
	{Name: "delivery", Shape: Choice, Choices: []string{"at_least_once", "exactly_once"}, Doc: "What outputs promise after a crash; at_least_once if not given."},
	{Name: "parallelism", Shape: Whole, Doc: "How many subtasks a step has, 1 to 128; 1 if not given."},
	{Name: "steps", Shape: Other, Doc: "What happens to the records, in order."},
	{Name: "outputs", Shape: Other, Required: true, Doc: "Where they go, by name; main takes what the last step emits."},
	{Name: "topics", Shape: Other, Doc: "Topics on the bus, by name, that the job describes."},
}

var filterFields = []Field{
	{Name: "if", Shape: Expression, Required: true, Doc: "Which records pass."},
}

var sideFields = []Field{
	{Name: "to", Shape: Name, Required: true, Doc: "The output that gets a copy."},
	{Name: "if", Shape: Expression, Doc: "Of which records; of all if not given."},
	{Name: "map", Shape: Other, Doc: "What the copy is: an expression, or fields with one each."},
	{Name: "key", Shape: Expression, Doc: "The copy's key; the record's if not given."},
}

var windowFields = []Field{
	{Name: "tumbling", Shape: Duration, Required: true, Doc: "The length of the windows, which follow one another."},
	{Name: "allowed_lateness", Shape: Duration, Doc: "How long a window that has fired takes records; 0s if not given."},
	{Name: "late_to", Shape: Name, Doc: "The output that gets records that come too late; they are counted and dropped if not given."},
	{Name: "aggregate", Shape: Other, Required: true, Doc: "The fields of a result, an aggregate each."},
}

// stepFields are the steps, with what stands beside them.
var stepFields = []Field{
	{Name: "filter", Shape: Block, Fields: filterFields, Doc: "Lets records pass."},
	{Name: "map", Shape: Other, Doc: "Replaces the value: an expression, or fields with one each."},
	{Name: "set", Shape: Other, Doc: "Adds fields to the value, or replaces them: an expression each."},
	{Name: "key_by", Shape: Other, Doc: "Gives records a key: an expression, or fields with one each."},
	{Name: "side", Shape: Block, Fields: sideFields, Doc: "Copies records to an output; all of them go on too."},
	{Name: "rebalance", Shape: Block, Doc: "Spreads records over the subtasks of the step behind it: {}. Their order is given up."},
	{Name: "window", Shape: Block, Fields: windowFields, Doc: "Puts the records of a key into windows of event time and aggregates them."},
	{Name: "id", Shape: Name, Doc: "The step's name; its state belongs to it."},
	{Name: "parallelism", Shape: Whole, Doc: "How many subtasks the step has."},
}

// Parts of the language that design has for later.
var laterFields = map[string]string{
	"inputs":  "a job has one source for now; another job can bring several topics together",
	"join":    "it comes in a later version",
	"lookup":  "it comes in a later version",
	"sliding": "only tumbling windows for now",
	"session": "only tumbling windows for now",
}
