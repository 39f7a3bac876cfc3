package jobs

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// TestSecretShowsNothing: whatever prints or encodes a secret, or what holds one, shows *** at most.
func TestSecretShowsNothing(t *testing.T) {
	const canary = "canary-4711"
	s := NewSecret("${file:p}", func() (string, error) { return canary, nil })
	type open struct {
		Name   string
		Secret Secret
	}
	type closed struct {
		name   string
		secret Secret
		in     struct{ secret *Secret }
		list   []Secret
		by     map[string]Secret
	}
	c := closed{name: "n", secret: s, list: []Secret{s}, by: map[string]Secret{"a": s}}
	c.in.secret = &s
	held := map[string]any{"itself": s, "pointer": &s, "open": open{"n", s}, "closed": c, "list": []Secret{s}, "map": map[string]Secret{"k": s},
		"error": fmt.Errorf("login with %v: %w", s, errors.New("no"))}
	for name, v := range held {
		var texts []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%c", "%U", "%T"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		texts = append(texts, fmt.Sprint(v), fmt.Sprintln(v))
		for _, marshal := range []func(any) ([]byte, error){json.Marshal, xml.Marshal, func(v any) ([]byte, error) { return yaml.Marshal(v) }} {
			b, _ := marshal(v) // what cannot be encoded shows nothing either
			texts = append(texts, string(b))
		}
		var b bytes.Buffer
		_ = gob.NewEncoder(&b).Encode(v)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("m", "v", v)
		slog.New(slog.NewTextHandler(&b, nil)).Info("m", "v", v)
		for _, text := range append(texts, b.String()) {
			if strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) || strings.Contains(text, fmt.Sprintf("%X", canary)) {
				t.Errorf("%s shows itself: %s", name, text)
			}
		}
		if name == "open" && !strings.Contains(texts[0], "***") {
			t.Errorf("%s shows nothing at all: %s", name, texts[0])
		}
	}
	if b, _ := json.Marshal(s); string(b) != `"***"` {
		t.Errorf("as JSON it is %s", b)
	}
	if got, err := s.Reveal(); got != canary || err != nil || s.Ref() != "${file:p}" {
		t.Errorf("revealed it is %q, %v", got, err)
	}
}
