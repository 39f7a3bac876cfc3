package kafka

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sidestream-dev/sidestream/jobs/connector"
)

// services is a process whose embedded broker is at an address.
type services string

func (s services) Kafka(context.Context) (string, error) { return string(s), nil }

// TestSinkProbe: a topic that is missing and cannot be made, or shall not, is told before anything is sent, and so are brokers
// that are away; no topic is made by asking.
func TestSinkProbe(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl := client(t, addr)
	there, missing, own := topicName(t), topicName(t)+"-missing", topicName(t)+"-embedded"
	makeTopic(t, cl, there, 1)
	closed, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "root", "secret"),
		kfake.User("PLAIN", "guest", "secret", kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: missing,
			Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationDescribe, Allow: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	guest := Security{SASL: "plain", Username: "guest", Password: connector.SecretFile(password)}
	for _, tt := range []struct {
		name string
		sink Sink
		want string // "" is fine
	}{
		{"there", Sink{Brokers: []string{addr}, Topic: there}, ""},
		{"to be made", Sink{Brokers: []string{addr}, Topic: missing}, ""},
		{"to be made, embedded", Sink{Brokers: []string{embedded}, Topic: own}, ""},
		{"not to be made", Sink{Brokers: []string{addr}, Topic: missing, MustExist: true}, "topic " + missing + " does not exist, and create_topic is false"},
		{"no brokers", Sink{Topic: "x"}, "no brokers"},
		{"not allowed", Sink{Brokers: closed.ListenAddrs(), Topic: missing, Security: guest}, "topic " + missing + " does not exist and cannot be made: TOPIC_AUTHORIZATION_FAILED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := sinkEnv(nil)
			env.Services = services(addr)
			ctx, cancel := context.WithTimeout(t.Context(), testWait)
			defer cancel()
			err := tt.sink.Probe(ctx, env)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("away", func(t *testing.T) {
		var w waits
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := (Sink{Brokers: []string{"127.0.0.1:1"}, Topic: there}).Probe(ctx, sinkEnv(&w)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that the time is over", err)
		}
	})
	topics, err := kadm.NewClient(cl).ListTopics(t.Context())
	if err != nil || !topics.Has(there) || topics.Has(missing) || topics.Has(own) {
		t.Errorf("after asking there are %v, %v", topics.Names(), err)
	}
}
