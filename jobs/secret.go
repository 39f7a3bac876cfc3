package jobs

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// masked is what a secret shows of itself.
const masked = "***"

// Secret is a value that only [Secret.Reveal] gives away: printed, logged or encoded it is ***. It is read anew each time, so
// that a file may be replaced under way. The zero Secret is none.
type Secret struct {
	p *secret // a pointer, at which printing by reflection stops
}

type secret struct {
	ref  string
	read func() (string, error)
}

// NewSecret is what read gives. ref says in messages where it is from, and is no secret itself.
func NewSecret(ref string, read func() (string, error)) Secret { return Secret{&secret{ref, read}} }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.p == nil }

// Ref says where the secret is from, as a definition writes it: ${file:PATH} or ${env:NAME}.
func (s Secret) Ref() string {
	if s.p == nil {
		return ""
	}
	return s.p.ref
}

// Reveal reads the secret. Whoever calls it keeps it out of messages. The error names where it should have come from.
func (s Secret) Reveal() (string, error) {
	if s.p == nil {
		return "", errors.New("there is no secret")
	}
	return s.p.read()
}

// Format writes *** whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// String returns ***, and nothing where there is no secret.
func (s Secret) String() string {
	if s.p == nil {
		return ""
	}
	return masked
}

// GoString returns ***.
func (s Secret) GoString() string { return s.String() }

// MarshalText returns ***; so JSON, XML and flags show it too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML returns ***.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue returns ***.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
