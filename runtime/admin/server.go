package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"

	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
)

const closeTimeout = 2 * time.Second

// Config says what a Server serves.
type Config struct {
	Version string      // of the program, for the API's description
	Spec    spec.Config // loads the definitions that the API is given
	Limits  Limits
	Logger  *slog.Logger // nil logs nothing
}

// Server answers about one Runtime, which it is given by Attach: it can listen before, and then says that the process starts.
type Server struct {
	cfg     Config
	ctx     context.Context
	cancel  context.CancelFunc
	api     huma.API
	mux     *http.ServeMux
	routes  map[string]route // by the mux's pattern
	metrics http.Handler
	streams map[class]chan struct{}
	rates   map[class]*rate.Limiter

	operations operations

	runtime atomic.Pointer[runtime.Runtime]
	started atomic.Bool

	mu      sync.Mutex
	servers []*http.Server
	serving sync.WaitGroup
}

// New returns a Server that does not listen yet.
func New(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if cfg.Limits, err = cfg.Limits.withDefaults(); err != nil {
		return nil, err
	}
	l := cfg.Limits
	s := &Server{cfg: cfg, mux: http.NewServeMux(), routes: map[string]route{}, streams: map[class]chan struct{}{},
		rates: map[class]*rate.Limiter{classSocket: l.Socket.limiter(), classLogin: l.Login.limiter(), classOpen: l.Open.limiter()}}
	for who := range s.rates { // so that who has no login cannot take the places of those who have
		s.streams[who] = make(chan struct{}, l.Streams)
	}
	s.operations.first = strconv.FormatInt(time.Now().UnixMicro(), 36)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	reg := prometheus.NewRegistry()
	reg.MustRegister(NewCollector(func() runtime.Status {
		if rt := s.runtime.Load(); rt != nil {
			return rt.Status()
		}
		return runtime.Status{}
	}))
	s.metrics = promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 8})
	s.register()
	return s, nil
}

// Attach gives the Server what it is to answer about, once it is open.
func (s *Server) Attach(rt *runtime.Runtime) { s.runtime.Store(rt) }

// Started says that the runtime has been started: what the log says has been replayed.
func (s *Server) Started() { s.started.Store(true) }

// ListenUnix serves everything on a unix socket, which only its owner can use: the socket is 0600, in a directory that is
// 0700. A socket that nobody answers is replaced. One whose file is removed is made again.
func (s *Server) ListenUnix(path string) error {
	l, err := openSocket(path, s.cfg.Logger)
	if err != nil {
		return err
	}
	s.serve(l, s.guard(&Listener{listener: l}, classSocket))
	s.serving.Go(func() { l.watch(s.ctx) })
	return nil
}

// Serve answers on what TCP.Listen has returned, which is the Server's from now on.
func (s *Server) Serve(l *Listener) { s.serve(l.listener, s.guard(l, classOpen)) }

// serve starts answering on l; Close ends it.
func (s *Server) serve(l net.Listener, h http.Handler) {
	lim := s.cfg.Limits
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: lim.HeaderTimeout,
		ReadTimeout:       lim.ReadTimeout,
		WriteTimeout:      lim.WriteTimeout,
		IdleTimeout:       lim.IdleTimeout,
		MaxHeaderBytes:    lim.HeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug), // what clients do wrong is their own
	}
	s.mu.Lock()
	s.servers = append(s.servers, srv)
	s.mu.Unlock()
	s.serving.Go(func() {
		if err := srv.Serve(limited(s.ctx, l, lim, &s.serving)); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Logger.Error("the admin API has ended", "address", l.Addr().String(), "err", err)
		}
	})
}

// Close ends requests and listeners and waits for them. A socket's file goes.
func (s *Server) Close() error {
	s.operations.mu.Lock() // an operation has begun and is waited for, or it sees that it must not
	s.cancel()
	s.operations.mu.Unlock()
	s.mu.Lock()
	servers := s.servers
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	for _, srv := range servers {
		if srv.Shutdown(ctx) != nil {
			errs = append(errs, srv.Close())
		}
	}
	s.serving.Wait()
	s.operations.under.Wait()
	return errors.Join(errs...)
}
