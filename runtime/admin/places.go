package admin

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	refusalsMax   = 64       // at a time; who comes beyond them is cut without a word
	refusalUnread = 64 << 10 // bytes of a request that are read for nothing
)

// places is a listener that keeps no more than so many connections. Who comes beyond them is told to come again, and not kept waiting.
type places struct {
	net.Listener
	ctx      context.Context // ends refusals
	most     time.Duration   // for each of them, to ask and to be told
	taken    chan struct{}
	refusals chan struct{}
	under    *sync.WaitGroup
}

func limited(ctx context.Context, l net.Listener, lim Limits, under *sync.WaitGroup) net.Listener {
	return &places{Listener: l, ctx: ctx, most: lim.HeaderTimeout, taken: make(chan struct{}, lim.Connections), refusals: make(chan struct{}, refusalsMax), under: under}
}

// Accept makes places a net.Listener.
func (p *places) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case p.taken <- struct{}{}:
			return &placed{Conn: c, leave: sync.OnceFunc(func() { <-p.taken })}, nil
		default:
		}
		select {
		case p.refusals <- struct{}{}:
			p.under.Go(func() {
				defer func() { <-p.refusals }()
				p.refuse(c)
			})
		default:
			_ = c.Close()
		}
	}
}

// refuse answers the first request, once it has begun: a client takes no answer before it has asked. What it has sent is read, for what
// is unread when a connection is closed can take the answer with it.
func (p *places) refuse(c net.Conn) {
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(p.ctx, func() { _ = c.Close() })()
	_ = c.SetDeadline(time.Now().Add(p.most))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return
	}
	said := problem(http.StatusServiceUnavailable, KindBusy, "%d connections are open already; try again later", cap(p.taken))
	var text bytes.Buffer
	_ = writeJSON(&text, said) // a buffer takes all
	answer := http.Response{StatusCode: said.Status, ProtoMajor: 1, ProtoMinor: 1, Close: true, ContentLength: int64(text.Len()), Body: io.NopCloser(&text),
		Header: http.Header{"Content-Type": {problemType}, "Cache-Control": {"no-store"}, "Retry-After": {"1"}}}
	if answer.Write(c) != nil {
		return
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c, refusalUnread)
}

// placed is a connection that has a place.
type placed struct {
	net.Conn
	leave func()
}

// Close gives the place up.
func (c *placed) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
