package kafka

import (
	"context"
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// probe looks, for each bounded partition that has not ended, whether a record stands before its end: where compaction has
// removed the last ones the client gives nothing to read, and the end would never be seen.
func (r *reader) probe(ctx context.Context, cl *kgo.Client) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	for _, i := range r.todo { // a bounded source gets no others
		r.mu.Lock()
		of, asked, over := r.opened[i], r.asked[i], r.ends[i]
		r.mu.Unlock()
		end := of.from.end
		if over || asked >= end {
			continue
		}
		if next, ok := r.nextOffset(ctx, cl, of, asked); ok && next >= end {
			r.mu.Lock()
			r.ends[i] = true
			r.mu.Unlock()
			token(r.ready)
		}
	}
}

// nextOffset returns the offset behind a first batch that holds no record the client would give, starting at from. It goes
// over as many such batches as one answer has.
func (r *reader) nextOffset(ctx context.Context, cl *kgo.Client, s opened, from int64) (int64, bool) {
	leader, _, err := cl.PartitionLeader(s.topic, s.partition)
	if err != nil || leader < 0 {
		return 0, false
	}
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes = r.src.FetchBytes
	req.SessionEpoch = -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = s.topic, s.from.topicID
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = s.partition, from, r.src.PartitionBytes, -1
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	raw, err := cl.Broker(int(leader)).Request(ctx, req)
	if err != nil {
		return 0, false
	}
	resp := raw.(*kmsg.FetchResponse)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.Partition == s.partition && kerr.ErrorForCode(p.ErrorCode) == nil {
				return emptyUpTo(p.RecordBatches, from)
			}
		}
	}
	return 0, false
}

// emptyUpTo returns the offset behind the batches of b that hold no records.
func emptyUpTo(b []byte, from int64) (next int64, ok bool) {
	const headerLen = 61 // base offset 8, length 4, …, magic at 16, last offset delta at 23, record count at 57
	for len(b) >= headerLen && b[16] == 2 {
		size := 12 + int(int32(binary.BigEndian.Uint32(b[8:])))
		last := int64(binary.BigEndian.Uint64(b)) + int64(int32(binary.BigEndian.Uint32(b[23:])))
		if int32(binary.BigEndian.Uint32(b[57:])) > 0 && last >= from {
			return next, ok
		}
		next, ok = last+1, true
		if size < headerLen || size > len(b) {
			return next, ok
		}
		b = b[size:]
	}
	return next, ok
}
