package generator

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/sidestream-dev/sidestream/jobs"
)

// kinds are what devices measure, in turn.
func kinds() []string { return []string{"temperature", "humidity", "pressure", "vibration", "current"} }

const readingTail = `,"site":"plant-07","line":"L3","fw":"2.14.9","battery":0.83,"lat":52.51234,"lon":13.40123,` +
	`"tags":["a","b"],"status":"ok","note":"........................"}`

// record is what the text of one record is made from.
type record struct {
	n     int64
	split uint64
	at    jobs.Time
	h     uint64 // random
}

// shape writes records. It is used by one reader, and remembers the text of the last event time.
type shape struct {
	devices [][]byte // names; they are the keys too
	kinds   []string
	parts   []part // of a template; nil for readings
	maxLen  int
	at      jobs.Time
	atText  []byte
}

// part is a piece of a template: text, then a variable unless it is empty.
type part struct {
	text string
	name string
}

func variables() []string {
	return []string{"n", "split", "ts", "time", "device", "kind", "reading", "random"}
}

func parseTemplate(t string) ([]part, error) {
	if t == "" {
		return nil, nil
	}
	var parts []part
	for {
		text, rest, found := strings.Cut(t, "${")
		if !found {
			return append(parts, part{text: text}), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, fmt.Errorf("generator: template: ${ is not closed")
		}
		known := false
		for _, v := range variables() {
			known = known || v == name
		}
		if !known {
			return nil, fmt.Errorf("generator: template: ${%s} is not one of ${%s}", name, strings.Join(variables(), "} ${"))
		}
		parts = append(parts, part{text: text, name: name})
		t = after
	}
}

func newShape(s Source) (*shape, error) {
	parts, err := parseTemplate(s.Template)
	if err != nil {
		return nil, err
	}
	sh := &shape{parts: parts, kinds: kinds(), at: jobs.NoTime}
	if s.Measure != "" {
		quoted, err := json.Marshal(s.Measure)
		if err != nil {
			return nil, fmt.Errorf("generator: kind: %w", err)
		}
		sh.kinds = []string{string(quoted[1 : len(quoted)-1])}
	}
	sh.devices = make([][]byte, s.Devices)
	const width = 12 // device-00042
	names := make([]byte, 0, s.Devices*(width+2))
	longest := 0
	for i := range sh.devices {
		from := len(names)
		names = fmt.Appendf(names, "device-%05d", i)
		sh.devices[i] = names[from:len(names):len(names)]
		longest = max(longest, len(names)-from)
	}
	for _, k := range sh.kinds {
		longest = max(longest, len(k))
	}
	sh.maxLen = 512 + 2*longest + len(s.Template) + len(parts)*(longest+32)
	return sh, nil
}

// append writes the record's text behind *buf and returns its key.
func (sh *shape) append(buf *[]byte, r *record) (key []byte) {
	d := r.h % uint64(len(sh.devices))
	key = sh.devices[d]
	kind := sh.kinds[d%uint64(len(sh.kinds))]
	if sh.at != r.at {
		sh.at = r.at
		sh.atText = strconv.AppendInt(sh.atText[:0], int64(r.at), 10)
	}
	if sh.parts != nil {
		*buf = sh.template(*buf, r, key, kind)
		return key
	}
	b := append(*buf, `{"device":"`...)
	b = append(b, key...)
	b = append(b, `","kind":"`...)
	b = append(b, kind...)
	b = append(b, `","ts":`...)
	b = append(b, sh.atText...)
	b = append(b, `,"reading":`...)
	b = reading(b, r.h)
	b = append(b, `,"seq":`...)
	b = strconv.AppendInt(b, r.n, 10)
	*buf = append(b, readingTail...)
	return key
}

// reading appends 0.00 to 99.99.
func reading(b []byte, h uint64) []byte {
	v := h >> 32 % 10000
	if v >= 1000 {
		b = append(b, byte('0'+v/1000))
	}
	return append(b, byte('0'+v/100%10), '.', byte('0'+v/10%10), byte('0'+v%10))
}

func (sh *shape) template(b []byte, r *record, device []byte, kind string) []byte {
	for _, p := range sh.parts {
		b = append(b, p.text...)
		switch p.name {
		case "n":
			b = strconv.AppendInt(b, r.n, 10)
		case "split":
			b = strconv.AppendUint(b, r.split, 10)
		case "ts":
			b = append(b, sh.atText...)
		case "time":
			b = append(b, r.at.String()...)
		case "device":
			b = append(b, device...)
		case "kind":
			b = append(b, kind...)
		case "reading":
			b = reading(b, r.h)
		case "random":
			b = strconv.AppendUint(b, mix(r.h)>>1, 10) // fits a signed number
		}
	}
	return b
}
