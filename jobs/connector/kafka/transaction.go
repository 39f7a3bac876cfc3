package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/sidestream-dev/sidestream/jobs"
)

// transactionTimeout is after how long the brokers end a transaction of a sink that says nothing any more.
const transactionTimeout = time.Minute

// busyWait is the pause where the brokers still finish the transaction before.
const busyWait = 10 * time.Millisecond

// An output's state:
//
//	+------------+----------+---------+
//	| version u8 | flags u8 | id text |
//	+------------+----------+---------+
//
// id names the output's transactions and their group for good: the log's id when the output began, and a word of chance, so
// that an output which is removed and made again takes nothing for its own that the former sent. It is durable before
// anything is sent.
type outputState struct {
	id        string
	committed bool // the newest records were sent in a transaction
}

const (
	outputStateVersion = 1
	flagCommitted      = 1
)

func (s outputState) encode() []byte {
	flags := byte(0)
	if s.committed {
		flags = flagCommitted
	}
	return append([]byte{outputStateVersion, flags}, s.id...)
}

func decodeOutputState(b []byte) (outputState, error) {
	if len(b) < 2 || b[0] != outputStateVersion || b[1]&^flagCommitted != 0 {
		return outputState{}, fmt.Errorf("kafka: state %x is not one of a kafka sink", b)
	}
	return outputState{id: string(b[2:]), committed: b[1]&flagCommitted != 0}, nil
}

// name is the transactional id, and that of the group whose offset is the position.
func (w *writer) name() string {
	return "sidestream." + w.state.id + "." + w.env.Job + "." + w.env.Output
}

// transactional are a client's options for exactly once. The protocol is that of brokers from 2.5 on: with the newer one an
// offset is added to a transaction in other ways, and which one holds the client does not tell.
func (w *writer) transactional() []kgo.Opt {
	return []kgo.Opt{
		kgo.TransactionalID(w.name()),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.MaxVersions(kversion.V3_6_0()),
	}
}

// fence shuts out who sent under this name before, whose open transaction is aborted by it, and reads how far the committed
// ones have come.
func (w *writer) fence(ctx context.Context) error {
	if _, _, err := w.cl.ProducerID(ctx); err != nil {
		return fmt.Errorf("kafka: begin to send to %s in transactions: %w", w.sink.Topic, err)
	}
	offsets, err := kadm.NewClient(w.cl).FetchOffsetsForTopics(kadm.RequireStable(ctx), w.name(), w.sink.Topic)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // some say that, others give no offset
		return fmt.Errorf("kafka: read the position of what was sent to %s: %w", w.sink.Topic, err)
	}
	o, ok := offsets.Lookup(w.sink.Topic, 0)
	switch {
	case !ok || o.At < 0:
		if w.state.committed {
			return &jobs.StoppedError{
				Why: fmt.Sprintf("group %s has no position of what was sent to %s: the brokers forget one that has not moved for long "+
					"(offsets.retention.minutes), or it was deleted", w.name(), w.sink.Topic),
				Choice: "run the job once with delivery: at_least_once, which repeats at most what was sent in the last moments before a crash",
			}
		}
		w.next = 0
	case o.At > w.known:
		return &jobs.StoppedError{
			Why: fmt.Sprintf("topic %s holds records up to number %d of this output, but the log knows of only %d: is the data directory "+
				"an older copy?", w.sink.Topic, o.At, w.known),
			Choice: "put the newer data directory back, or give the copy a new id, or name another topic",
		}
	case o.At > w.env.Cut.From && o.At <= w.env.Cut.To:
		return &jobs.StoppedError{
			Why: fmt.Sprintf("topic %s holds records up to number %d of this output, of which a repair removed those from %d on from the log: "+
				"what is computed again in their place would repeat them", w.sink.Topic, o.At, w.env.Cut.From),
			Choice: "run the job once with delivery: at_least_once, until it has sent something, which accepts the repeats; or name another topic",
		}
	default:
		w.next = o.At
	}
	return nil
}

// unsent leaves out what a committed transaction holds.
func (w *writer) unsent(ms []jobs.Message) []jobs.Message {
	for len(ms) > 0 && ms[0].Offset < w.next {
		ms = ms[1:]
	}
	return ms
}

// commit makes the records produced since begin, and the position behind them, one transaction. After an error it is not
// known whether it was committed; the next fence tells.
func (w *writer) commit(ctx context.Context, next int64) error {
	id, epoch, err := w.cl.ProducerID(ctx)
	if err != nil {
		return err
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = w.name(), id, epoch, w.name()
	err = whileBusy(ctx, func() error {
		resp, err := add.RequestWith(ctx, w.cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
	if err != nil {
		return err
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = w.name(), id, epoch, w.name()
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	t.Topic, p.Offset = w.sink.Topic, next
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	err = whileBusy(ctx, func() error {
		resp, err := req.RequestWith(ctx, w.cl)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.cl.EndTransaction(ctx, kgo.TryCommit)
}

// whileBusy repeats do while the brokers are still at the transaction before, or at finding who is in charge.
func whileBusy(ctx context.Context, do func() error) error {
	for {
		err := do()
		if !errors.Is(err, kerr.ConcurrentTransactions) && !errors.Is(err, kerr.CoordinatorLoadInProgress) &&
			!errors.Is(err, kerr.CoordinatorNotAvailable) && !errors.Is(err, kerr.NotCoordinator) {
			return err
		}
		select {
		case <-time.After(busyWait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
