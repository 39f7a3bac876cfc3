package kafka

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recordPool takes back the client's records once they have become messages. What they point to is not pooled: it lives on
// in the messages.
type recordPool struct{ p sync.Pool }

func (p *recordPool) GetRecords(n int) []kgo.Record {
	if v, ok := p.p.Get().(*[]kgo.Record); ok && cap(*v) >= n {
		return (*v)[:n]
	}
	return make([]kgo.Record, n)
}

func (p *recordPool) PutRecords(rs []kgo.Record) { p.p.Put(&rs) }
