package connector

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

func testFields() []Field {
	return []Field{
		{Name: "path", Kind: String, Required: true},
		{Name: "n", Kind: Int},
		{Name: "on", Kind: Bool, Default: "true"},
		{Name: "wait", Kind: Duration, Default: "1m30s"},
		{Name: "size", Kind: Bytes, Default: "1MiB"},
		{Name: "names", Kind: List},
		{Name: "format", Kind: Enum, Enum: []string{"a", "b"}},
	}
}

func TestComplete(t *testing.T) {
	tests := []struct {
		name  string
		given map[string]any
		want  Values
		errs  []string
	}{
		{"defaults", map[string]any{"path": "p"},
			Values{"path": "p", "on": true, "wait": 90 * time.Second, "size": int64(1 << 20)}, nil},
		{"Go values", map[string]any{"path": "p", "n": 3, "on": false, "wait": time.Second, "size": int64(5), "names": []string{"x"}, "format": "b"},
			Values{"path": "p", "n": int64(3), "on": false, "wait": time.Second, "size": int64(5), "names": []string{"x"}, "format": "b"}, nil},
		{"texts", map[string]any{"path": "p", "n": "1_000", "on": "false", "wait": "2ms", "size": "64 KiB", "names": "a, b"},
			Values{"path": "p", "n": int64(1000), "on": false, "wait": 2 * time.Millisecond, "size": int64(65536), "names": []string{"a", "b"}}, nil},
		{"all errors, by name", map[string]any{"n": "x", "on": 1, "wait": "soon", "size": "1XB", "names": true, "format": "c", "fromat": "a"}, nil, []string{
			`format: "c" is not one of a, b`,
			`fromat: is not a setting (known are path, n, on, wait, size, names, format)`,
			`n: want a whole number, 0 or more, not "x"`,
			`names: want a list of strings, not true`,
			`on: want true or false, not 1`,
			`path: is required`,
			`size: want a size such as 4096, 64KiB or 1MB, not "1XB"`,
			`wait: want a duration such as 250ms, 5s or 1h30m, not "soon"`,
		}},
		{"negative", map[string]any{"path": "p", "n": -1, "wait": -time.Second, "size": -1}, nil, []string{
			`n: want a whole number, 0 or more, not "-1"`,
			`size: want a size such as 4096, 64KiB or 1MB, not "-1"`,
			`wait: want a duration such as 250ms, 5s or 1h30m, not "-1s"`,
		}},
		{"too large", map[string]any{"path": "p", "size": "9999999999999TiB"}, nil, []string{
			`size: want a size such as 4096, 64KiB or 1MB, not "9999999999999TiB"`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, errs := Complete(testFields(), tt.given)
			var texts []string
			for _, e := range errs {
				texts = append(texts, e.Error())
			}
			if !reflect.DeepEqual(texts, tt.errs) {
				t.Errorf("errors %q, want %q", texts, tt.errs)
			}
			if tt.errs == nil && !reflect.DeepEqual(v, tt.want) {
				t.Errorf("got %v, want %v", v, tt.want)
			}
		})
	}
}

func TestSecretSetting(t *testing.T) {
	fields := []Field{{Name: "password", Kind: Secret}}
	for name, given := range map[string]any{"text": "hunter2", "number": 42, "list": []string{"hunter2"}, "none": jobs.Secret{}} {
		_, errs := Complete(fields, map[string]any{"password": given})
		if len(errs) != 1 || errs[0].Error() != "password: want a reference to the secret, not the secret itself (write ${file:PATH}, or ${env:NAME})" {
			t.Errorf("%s: got %v", name, errs)
		}
	}
	v, errs := Complete(fields, map[string]any{"password": jobs.NewSecret("r", func() (string, error) { return "x", nil })})
	if got, _ := v.Secret("password").Reveal(); len(errs) != 0 || got != "x" || !(Values{}).Secret("password").IsZero() {
		t.Errorf("got %q, %v", got, errs)
	}
}

func TestValues(t *testing.T) {
	v := Values{"s": "x", "i": int64(1), "b": true, "d": time.Second, "l": []string{"y"}}
	if v.String("s") != "x" || v.Int("i") != 1 || !v.Bool("b") || v.Duration("d") != time.Second || v.List("l")[0] != "y" || !v.Has("s") {
		t.Error("a value is not what was put in")
	}
	if v.String("none") != "" || v.Int("none") != 0 || v.Bool("none") || v.List("none") != nil || v.Has("none") {
		t.Error("an absent value is not zero")
	}
}

func TestFieldErrors(t *testing.T) {
	a, b := &FieldError{Field: "a", Msg: "is odd"}, errors.New("plain")
	got := FieldErrors(errors.Join(fmt.Errorf("while: %w", a), b))
	if len(got) != 2 || got[0] != a || got[1].Field != "" || got[1].Msg != "plain" {
		t.Errorf("got %v", got)
	}
	if FieldErrors(nil) != nil {
		t.Error("no error is one")
	}
}

func TestInherited(t *testing.T) {
	k := SinkKind{Fields: []Field{{Name: "brokers", Inherit: true}, {Name: "tls", Inherit: true}, {Name: "topic"}}}
	source := map[string]any{"brokers": "b", "tls": true, "topic": "in"}
	for _, tt := range []struct{ given, source, want map[string]any }{
		{map[string]any{"topic": "out"}, source, map[string]any{"topic": "out", "brokers": "b", "tls": true}},
		{map[string]any{"topic": "out", "brokers": "c"}, source, map[string]any{"topic": "out", "brokers": "c"}},
		{map[string]any{"topic": "out"}, nil, map[string]any{"topic": "out"}},
		{nil, source, map[string]any{"brokers": "b", "tls": true}},
	} {
		if got := k.Inherited(tt.given, tt.source); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%v of %v: got %v, want %v", tt.given, tt.source, got, tt.want)
		}
	}
}

func TestPath(t *testing.T) {
	for _, tt := range []struct{ base, in, want string }{
		{"", "a", "a"}, {"/b", "a", "/b/a"}, {"/b", "/a", "/a"}, {"/b", "", ""},
	} {
		if got := (LoadEnv{BaseDir: tt.base}).Path(tt.in); got != tt.want {
			t.Errorf("%q below %q is %q, want %q", tt.in, tt.base, got, tt.want)
		}
	}
}
