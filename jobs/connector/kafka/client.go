package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/jobs"
)

// embedded stands in a list of brokers for the process's own.
const embedded = "embedded"

// retryWait is the pause between tries where the client has given up; it doubles up to retryWaitMax.
const (
	retryWait    = 100 * time.Millisecond
	retryWaitMax = 2 * time.Second
	tryTimeout   = 10 * time.Second
)

func checkBrokers(brokers []string) error {
	if len(brokers) == 0 {
		return errors.New("kafka: no brokers")
	}
	for _, b := range brokers {
		if b == "" {
			return errors.New("kafka: a broker's address is empty")
		}
		if strings.Contains(b, "@") { // it is not shown: what stands before may be a password
			return errors.New("kafka: a broker's address is host:port, without a user; that is for username and password")
		}
		if b == embedded && len(brokers) > 1 {
			return errors.New(`kafka: "embedded" stands alone: it is the one broker there is`)
		}
	}
	return nil
}

// checkTopic refuses what no broker takes for a name.
func checkTopic(name string) error {
	for _, c := range name {
		if c >= utf8.RuneSelf || !strings.ContainsRune("._-", c) && !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') {
			return fmt.Errorf("kafka: topic %q: want letters, digits, '.', '_' and '-'", name)
		}
	}
	if name == "" || name == "." || name == ".." || len(name) > 249 {
		return fmt.Errorf("kafka: topic %q: want 1 to 249 letters, digits, '.', '_' and '-', not dots alone", name)
	}
	return nil
}

func isEmbedded(brokers []string) bool { return len(brokers) == 1 && brokers[0] == embedded }

// newClient makes a client that tells st what it meets. It connects when first used.
func newClient(ctx context.Context, brokers []string, sec Security, services jobs.Services, id string, st *status, more ...kgo.Opt) (*kgo.Client, error) {
	if isEmbedded(brokers) {
		if services == nil {
			return nil, errors.New("kafka: there is no embedded broker in this program: give the runtime one, or name brokers")
		}
		addr, err := services.Kafka(ctx)
		if err != nil {
			return nil, fmt.Errorf("kafka: embedded broker: %w", err)
		}
		brokers = []string{addr}
		more = append(more, kgo.AllowAutoTopicCreation())
	}
	secOpts, err := sec.options()
	if err != nil {
		return nil, err
	}
	st.login.begin()
	opts := append([]kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.ClientID(id),
		kgo.WithHooks(st, &st.login),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(backoff),
		kgo.DisableClientMetrics(),
	}, secOpts...)
	cl, err := kgo.NewClient(append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return cl, nil
}

func backoff(fails int) time.Duration {
	d := retryWait << min(fails, 6)
	return min(d, retryWaitMax)
}

// permanent reports whether waiting does not help: the cluster has answered, and its answer is a no.
func permanent(err error) bool {
	for _, e := range []error{
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState,
		kerr.TransactionalIDAuthorizationFailed, kerr.InvalidTopicException, kerr.UnsupportedVersion, kerr.SecurityDisabled, kerr.PolicyViolation,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	_, ok := errors.AsType[*RangeError](err)
	_, ok2 := errors.AsType[*ReplacedError](err)
	_, ok3 := errors.AsType[*jobs.StoppedError](err)
	return ok || ok2 || ok3
}

// untilDone calls try until it succeeds, fails for good or ctx ends, and tells st why it has to wait. A login that is
// refused is a failure for good.
func untilDone(ctx context.Context, st *status, try func(ctx context.Context) error) error {
	ctx, release := st.login.guard(ctx)
	defer release()
	for n := 0; ; n++ {
		tctx, cancel := context.WithTimeout(ctx, tryTimeout)
		err := try(tctx)
		cancel()
		if err == nil {
			st.fine()
			return nil
		}
		if refused := st.login.err(); refused != nil {
			return refused
		}
		if ctx.Err() != nil {
			return fmt.Errorf("kafka: %w", ctx.Err())
		}
		if permanent(err) {
			return err
		}
		st.wait("try", shorten(err))
		select {
		case <-ctx.Done():
		case <-time.After(backoff(n)):
		}
	}
}

func shorten(err error) string {
	if k, ok := errors.AsType[*kerr.Error](err); ok && k == err {
		return k.Description
	}
	return err.Error()
}

// RangeError is an offset that a partition does not have (any more). Nothing is read in its place.
type RangeError struct {
	Topic      string
	Partition  int32
	Offset     int64 // what was to be read
	First, End int64 // what there is: First to End-1; -1 where that is not known
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("kafka: %s/%d: offset %d is out of range: the partition has %d up to %d; records are lost to this job: "+
		"start it from another position, or without its state", e.Topic, e.Partition, e.Offset, e.First, e.End)
}

// ReplacedError is a topic that was deleted and made again since its position was taken.
type ReplacedError struct{ Topic string }

func (e *ReplacedError) Error() string {
	return fmt.Sprintf("kafka: topic %s was deleted and made again: the job's offsets are those of the old one, and nothing is read in their place; "+
		"start it without its state, or give it a topic of another name", e.Topic)
}
