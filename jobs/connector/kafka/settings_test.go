package kafka

import (
	"reflect"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs/connector"
)

func TestSettings(t *testing.T) {
	source := func(given map[string]any) (any, error) {
		v, errs := connector.Complete(SourceKind().Fields, given)
		if len(errs) > 0 {
			return nil, errs[0]
		}
		return SourceKind().New(v, connector.LoadEnv{BaseDir: "/base"})
	}
	sink := func(given map[string]any) (any, error) {
		v, errs := connector.Complete(SinkKind().Fields, given)
		if len(errs) > 0 {
			return nil, errs[0]
		}
		return SinkKind().New(v, connector.LoadEnv{BaseDir: "/base"})
	}
	secret := connector.SecretFile("/p")
	tests := []struct {
		name  string
		of    func(map[string]any) (any, error)
		given map[string]any
		want  any // what is made, or the field at fault
	}{
		{"source", source, map[string]any{"brokers": "a:1,b:2", "topics": []string{"in"}},
			Source{Brokers: []string{"a:1", "b:2"}, Topics: []string{"in"}, Start: "earliest", End: "never", Discovery: 30 * time.Second, BufferBytes: 8 << 20, PartitionBytes: 1 << 20}},
		{"source with all", source, map[string]any{"brokers": embedded, "topics": "in", "start": "2026-01-31T00:00:00Z", "end": "latest",
			"group": NoGroup, "isolation": "read_uncommitted", "buffer_bytes": "1MiB", "partition_bytes": "64KiB", "discovery_interval": "1m", "tls": true,
			"ca_file": "ca.pem", "cert_file": "c.pem", "key": secret, "sasl": "plain", "username": "u", "password": secret},
			Source{Brokers: []string{embedded}, Topics: []string{"in"}, Start: "2026-01-31T00:00:00Z", End: "latest", Group: NoGroup,
				Uncommitted: true, Discovery: time.Minute, BufferBytes: 1 << 20, PartitionBytes: 64 << 10,
				Security: Security{TLS: true, CAFile: "/base/ca.pem", CertFile: "/base/c.pem", Key: secret, SASL: "plain", Username: "u", Password: secret}}},
		{"source without brokers", source, map[string]any{"topics": "in"}, "brokers"},
		{"embedded and another", source, map[string]any{"brokers": "embedded,a:1", "topics": "in"}, "brokers"},
		{"start", source, map[string]any{"brokers": "a:1", "topics": "in", "start": "soon"}, "start"},
		{"end", source, map[string]any{"brokers": "a:1", "topics": "in", "end": "soon"}, "end"},
		{"topics", source, map[string]any{"brokers": "a:1", "topics": "in,in"}, "topics"},
		{"partition bytes", source, map[string]any{"brokers": "a:1", "topics": "in", "partition_bytes": "1GiB"}, "partition_bytes"},
		{"discovery interval", source, map[string]any{"brokers": "a:1", "topics": "in", "discovery_interval": "5ms"}, "discovery_interval"},
		{"login", source, map[string]any{"brokers": "a:1", "topics": "in", "sasl": "plain"}, "sasl"},
		{"a literal password", source, map[string]any{"brokers": "a:1", "topics": "in", "sasl": "plain", "username": "u", "password": "hunter2"}, "password"},
		{"a password without sasl", source, map[string]any{"brokers": "a:1", "topics": "in", "password": secret}, "password"},
		{"a certificate without key", source, map[string]any{"brokers": "a:1", "topics": "in", "tls": true, "cert_file": "c"}, "cert_file"},
		{"a key without certificate", source, map[string]any{"brokers": "a:1", "topics": "in", "tls": true, "key": secret}, "key"},
		{"a certificate without tls", source, map[string]any{"brokers": "a:1", "topics": "in", "cert_file": "c", "key": secret}, "cert_file"},
		{"ca file", source, map[string]any{"brokers": "a:1", "topics": "in", "ca_file": "x"}, "ca_file"},
		{"sink", sink, map[string]any{"brokers": "a:1", "topic": "out"},
			Sink{Brokers: []string{"a:1"}, Topic: "out", Compression: "none", MessageBytes: defaultMessageBytes}},
		{"sink with all", sink, map[string]any{"brokers": "a:1", "topic": "out", "create_topic": false, "partitions": 3, "compression": "zstd", "message_bytes": "2MiB"},
			Sink{Brokers: []string{"a:1"}, Topic: "out", MustExist: true, Partitions: 3, Compression: "zstd", MessageBytes: 2 << 20}},
		{"sink without brokers", sink, map[string]any{"topic": "out"}, "brokers"},
		{"sink's topic", sink, map[string]any{"brokers": "a:1", "topic": "a b"}, "topic"},
		{"sink's partitions", sink, map[string]any{"brokers": "a:1", "topic": "out", "partitions": 1_000_000}, "partitions"},
		{"sink's message bytes", sink, map[string]any{"brokers": "a:1", "topic": "out", "message_bytes": 1}, "message_bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.of(tt.given)
			if field, ok := tt.want.(string); ok {
				if fe := connector.FieldErrors(err); len(fe) != 1 || fe[0].Field != field {
					t.Errorf("got %v and %v, want an error of %s", got, err, field)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v and %v, want %+v", got, err, tt.want)
			}
		})
	}
}
