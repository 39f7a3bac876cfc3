package admin

import (
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

// Rate is how many requests a class of connections may make, all its clients together.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Limits bounds what clients can make a Server do. The zero value is a good one.
type Limits struct {
	Connections int // of each listener; who comes later is told to try again; 0 means 256
	Streams     int // requests for records or events under way, of each class; 0 means 64

	Socket Rate // over the unix socket; 0 means 2,000 a second, 4,000 at once
	Login  Rate // over TCP, logged in; 0 means 500 a second, 1,000 at once
	Open   Rate // over TCP without a login, attempts to log in included; 0 means 50 a second, 200 at once

	HeaderBytes     int   // of a request; 0 means 16 KiB
	BodyBytes       int64 // of a request; 0 means 64 KiB
	DefinitionBytes int64 // of a request that carries job definitions; 0 means 8 MiB
	Depth           int   // of a body's JSON; 0 means 32

	HeaderTimeout time.Duration // for a request's header; 0 means 5 s
	ReadTimeout   time.Duration // for a whole request; 0 means 30 s
	WriteTimeout  time.Duration // for an answer, or for each piece of one that streams; 0 means 30 s
	LongTimeout   time.Duration // for an answer that waits for jobs; 0 means 10 min
	Heartbeat     time.Duration // a stream of events says something at least so often; 0 means 15 s
	IdleTimeout   time.Duration // of a connection between requests; 0 means 1 min
}

func (l Limits) withDefaults() (Limits, error) {
	def(&l.Connections, 256)
	def(&l.Streams, 64)
	def(&l.Socket, Rate{2000, 4000})
	def(&l.Login, Rate{500, 1000})
	def(&l.Open, Rate{50, 200})
	def(&l.HeaderBytes, 16<<10)
	def(&l.BodyBytes, 64<<10)
	def(&l.DefinitionBytes, 8<<20)
	def(&l.Depth, 32)
	def(&l.HeaderTimeout, 5*time.Second)
	def(&l.ReadTimeout, 30*time.Second)
	def(&l.WriteTimeout, 30*time.Second)
	def(&l.LongTimeout, 10*time.Minute)
	def(&l.Heartbeat, 15*time.Second)
	def(&l.IdleTimeout, time.Minute)
	for name, n := range map[string]int64{"Connections": int64(l.Connections), "Streams": int64(l.Streams), "HeaderBytes": int64(l.HeaderBytes),
		"BodyBytes": l.BodyBytes, "DefinitionBytes": l.DefinitionBytes, "Depth": int64(l.Depth), "HeaderTimeout": int64(l.HeaderTimeout),
		"ReadTimeout": int64(l.ReadTimeout), "WriteTimeout": int64(l.WriteTimeout), "LongTimeout": int64(l.LongTimeout), "IdleTimeout": int64(l.IdleTimeout), "Heartbeat": int64(l.Heartbeat)} {
		if n < 0 {
			return l, fmt.Errorf("admin: Limits.%s is %d; it must be positive", name, n)
		}
	}
	return l, nil
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (r Rate) limiter() *rate.Limiter { return rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst) }
