package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Embedded is a Kafka broker inside this process, on a loopback port. It starts when it is first asked for; who made it
// closes it, after everything that uses it. The fields are set before its first use and left alone then.
type Embedded struct {
	Dir        string       // where topics and groups are kept; "" keeps them in memory
	Partitions int          // of a topic that is made by being asked for; 0 means 4
	Port       int          // 0 means any that is free
	Logger     *slog.Logger // nil logs nothing

	mu      sync.Mutex
	cluster *kfake.Cluster
	closed  bool
}

var _ jobs.Services = (*Embedded)(nil)

const defaultPartitions = 4

// Kafka returns the broker's address and starts it if it does not run yet.
func (e *Embedded) Kafka(context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return "", errors.New("kafka: the embedded broker is closed")
	}
	if e.cluster == nil {
		partitions := e.Partitions
		if partitions == 0 {
			partitions = defaultPartitions
		}
		opts := []kfake.Opt{
			kfake.Ports(e.Port), // one broker
			kfake.ClusterID("sidestream"),
			kfake.AllowAutoTopicCreation(),
			kfake.DefaultNumPartitions(partitions),
		}
		if e.Dir != "" {
			opts = append(opts, kfake.DataDir(e.Dir), kfake.SyncWrites())
		}
		if e.Logger != nil {
			opts = append(opts, kfake.WithLogger(brokerLog{e.Logger}))
		}
		c, err := kfake.NewCluster(opts...)
		if err != nil {
			return "", fmt.Errorf("kafka: start the embedded broker in %s: %w", e.Dir, err)
		}
		e.cluster = c
	}
	return e.cluster.ListenAddrs()[0], nil
}

// Close stops the broker and syncs what it has. A second call does nothing.
func (e *Embedded) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.cluster != nil {
		e.cluster.Close()
		e.cluster = nil
	}
	return nil
}

// brokerLog passes on what the broker has to say, save its chatter.
type brokerLog struct{ log *slog.Logger }

func (l brokerLog) Logf(level kfake.LogLevel, msg string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.log.Error("kafka: embedded broker: " + fmt.Sprintf(msg, args...))
	case kfake.LogLevelWarn:
		l.log.Warn("kafka: embedded broker: " + fmt.Sprintf(msg, args...))
	}
}
