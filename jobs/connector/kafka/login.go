package kafka

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// loginClosings is how often in a row a broker must close the connection in the midst of the login before that counts as a
// no. Kafka answers a wrong password with an error, others only hang up. A broker that goes down hangs up too, but it does
// not take the next connection, greet, and hang up at the same place again.
const loginClosings = 3

// login watches, as a hook of one client after the other, whether the brokers let it in. The client itself tries again
// what is hopeless, and tells nobody. It is safe for concurrent use.
type login struct {
	mu       sync.Mutex
	closings int
	refused  error
	cancel   context.CancelCauseFunc // of who waits; nil if nobody does
}

// begin forgets what the client before met: the next one reads the password anew.
func (l *login) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closings, l.refused = 0, nil
}

// guard returns a context that ends with the refusal as its cause. One goroutine at a time may hold one.
func (l *login) guard(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel = cancel
	if l.refused != nil {
		cancel(l.refused)
	}
	return ctx, func() {
		l.mu.Lock()
		l.cancel = nil
		l.mu.Unlock()
		cancel(nil)
	}
}

// err is the refusal, if there was one.
func (l *login) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

func (l *login) refuse(m kgo.BrokerMetadata, err error) {
	if l.refused != nil {
		return
	}
	l.refused = fmt.Errorf("kafka: broker %s refuses the login: %w; check sasl, username and password",
		net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port))), err)
	if l.cancel != nil {
		l.cancel(l.refused)
	}
}

// OnBrokerConnect is called by the client for each connection that was tried, login included.
func (l *login) OnBrokerConnect(m kgo.BrokerMetadata, _ time.Duration, conn net.Conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil, conn == nil:
		l.closings = 0
	case permanent(err):
		l.refuse(m, err)
	}
}

// OnBrokerE2E is called by the client for each request that was answered or given up.
func (l *login) OnBrokerE2E(m kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	if key != kmsg.SASLAuthenticate.Int16() || !hungUp(e.ReadErr) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closings++; l.closings >= loginClosings {
		l.refuse(m, fmt.Errorf("it hung up %d times in a row: %w", l.closings, kerr.SaslAuthenticationFailed))
	}
}
