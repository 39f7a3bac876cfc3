package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
)

const (
	tailsMax       = 64   // records requests at a time
	lastMax        = 1e6  // records that one asks back for
	requestBytes   = 4096 // of a body; no call takes one
	headerBytes    = 64 << 10
	headerTimeout  = 5 * time.Second
	closeTimeout   = 2 * time.Second
	socketPathMax  = 107 // what the kernel takes
	dialTimeoutMax = time.Second
)

// Config says what a Server serves.
type Config struct {
	Runtime *runtime.Runtime
	Logger  *slog.Logger // nil logs nothing
}

// Server answers about one Runtime.
type Server struct {
	cfg     Config
	ctx     context.Context
	cancel  context.CancelFunc
	metrics http.Handler
	tails   chan struct{}

	mu      sync.Mutex
	servers []*http.Server
	serving sync.WaitGroup
}

// New returns a Server that does not listen yet.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(NewCollector(cfg.Runtime.Status))
	s := &Server{cfg: cfg, tails: make(chan struct{}, tailsMax),
		metrics: promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 8})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// PathError says why a socket cannot be where it was asked for.
type PathError struct {
	Path string
	Why  string
	Err  error
}

func (e *PathError) Unwrap() error { return e.Err }
func (e *PathError) Error() string { return fmt.Sprintf("admin: socket %s: %s", e.Path, e.Why) }

// ListenUnix serves everything on a unix socket, which only its owner can use. A socket that nobody answers is replaced.
func (s *Server) ListenUnix(path string) error {
	if len(path) > socketPathMax {
		return &PathError{Path: path, Why: fmt.Sprintf("a socket's path has at most %d bytes; choose a shorter one", socketPathMax)}
	}
	if err := ownDirectory(path); err != nil {
		return err
	}
	if err := removeDead(path); err != nil {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return &PathError{Path: path, Why: err.Error(), Err: err}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(&PathError{Path: path, Why: err.Error(), Err: err}, l.Close())
	}
	mux := s.handlers()
	mux.HandleFunc("GET /v1/records", s.records)
	s.serve(l, mux)
	return nil
}

// ownDirectory makes the socket's directory, or checks that nobody else has access to the one that is there.
func ownDirectory(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &PathError{Path: path, Why: err.Error(), Err: err}
	}
	info, err := os.Stat(dir)
	if err != nil {
		return &PathError{Path: path, Why: err.Error(), Err: err}
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return &PathError{Path: path, Why: fmt.Sprintf("others may enter its directory (mode %04o); it must be 0700: chmod 700 %s, or choose another", mode, dir)}
	}
	return nil
}

// removeDead removes a socket that a process left behind when it was killed.
func removeDead(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		return &PathError{Path: path, Why: "there is a file of that name, which is no socket"}
	}
	if c, err := net.DialTimeout("unix", path, dialTimeoutMax); err == nil {
		_ = c.Close()
		return &PathError{Path: path, Why: "another process answers there"}
	}
	if err := os.Remove(path); err != nil {
		return &PathError{Path: path, Why: err.Error(), Err: err}
	}
	return nil
}

// ListenTCP serves the metrics and the status on a loopback address, and returns the address, whose port may have been 0.
func (s *Server) ListenTCP(addr string) (string, error) {
	l, err := Loopback(addr)
	if err != nil {
		return "", err
	}
	return s.ServeTCP(l), nil
}

// ServeTCP is ListenTCP on what Loopback returned, which is the Server's from now on.
func (s *Server) ServeTCP(l net.Listener) string {
	s.serve(l, localOnly(s.handlers()))
	return l.Addr().String()
}

// Loopback listens on a loopback address, before there is a runtime to serve: a wrong address is found out first.
func Loopback(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("admin: address %q: want a loopback address and a port, such as 127.0.0.1:9600", addr)
	}
	if !loopback(host) {
		return nil, fmt.Errorf("admin: address %q: %q is no loopback address; what is served has no login, so it stays on this machine", addr, host)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	return l, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// localOnly refuses requests that name another host: a page in a browser whose name was made to point here.
func localOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if !loopback(host) {
			fail(w, http.StatusForbidden, fmt.Errorf("this is served to 127.0.0.1 and localhost alone, not to %q", host))
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (s *Server) handlers() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.cfg.Runtime.Status()) })
	mux.HandleFunc("GET /v1/topics", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.cfg.Runtime.Status().Topics) })
	mux.Handle("GET /metrics", s.metrics)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, fmt.Errorf("there is no %s %s here", r.Method, r.URL.Path))
	})
	return mux
}

// serve starts answering on l; Close ends it.
func (s *Server) serve(l net.Listener, h http.Handler) {
	srv := &http.Server{
		Handler:           http.MaxBytesHandler(h, requestBytes),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    headerBytes,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
	}
	s.mu.Lock()
	s.servers = append(s.servers, srv)
	s.mu.Unlock()
	s.serving.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Logger.Error("the admin API has ended", "address", l.Addr().String(), "err", err)
		}
	})
}

// Close ends requests and listeners and waits for them. A socket's file goes.
func (s *Server) Close() error {
	s.cancel()
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
	return errors.Join(errs...)
}

// records streams a topic's records, one a line.
func (s *Server) records(w http.ResponseWriter, r *http.Request) {
	q, err := tailOf(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	select {
	case s.tails <- struct{}{}:
		defer func() { <-s.tails }()
	default:
		fail(w, http.StatusServiceUnavailable, fmt.Errorf("%d requests for records are under way; try again later", tailsMax))
		return
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	flush := http.NewResponseController(w)
	sent := false
	begin := func() {
		if !sent {
			w.Header().Set("Content-Type", "application/jsonl")
			w.WriteHeader(http.StatusOK)
			sent = true
		}
	}
	if q.Follow {
		if _, ok := s.cfg.Runtime.Topic(q.Topic); ok {
			begin()
			_ = flush.Flush() // a client that is gone is noticed by what follows
		}
	}
	err = s.cfg.Runtime.Tail(r.Context(), q, func(rec runtime.TopicRecord) error {
		begin()
		if err := enc.Encode(rec); err != nil {
			return err
		}
		if q.Follow {
			return flush.Flush()
		}
		return nil
	})
	if s.ctx.Err() != nil {
		err = errors.New("the process is stopping")
	}
	switch {
	case err == nil:
		begin()
	case sent:
		_ = enc.Encode(apiError{err.Error()}) // the client may be what went wrong
	default:
		fail(w, statusOf(err), err)
	}
}

// tailOf reads the parameters of a request for records.
func tailOf(v url.Values) (runtime.Tail, error) {
	q := runtime.Tail{Topic: v.Get("topic"), Partition: -1, Last: 10, Follow: v.Get("follow") == "true"}
	if q.Topic == "" {
		return q, errors.New("topic is missing")
	}
	number := func(name string, most uint64, set func(uint64)) error {
		if !v.Has(name) {
			return nil
		}
		n, err := strconv.ParseUint(v.Get(name), 10, 64)
		if err != nil || n > most {
			return fmt.Errorf("%s is %q; it is a number from 0 to %d", name, v.Get(name), most)
		}
		set(n)
		return nil
	}
	if v.Has("from") {
		q.Last = 0
	}
	return q, errors.Join(
		number("partition", 1<<16, func(n uint64) { q.Partition = int(n) }),
		number("last", lastMax, func(n uint64) { q.Last = int(n) }),
		number("from", 1<<63-1, func(n uint64) { o := bus.Offset(n); q.From = &o }))
}

func statusOf(err error) int {
	var offset *bus.OffsetError
	if errors.Is(err, runtime.ErrNoTopic) || errors.As(err, &offset) {
		return http.StatusNotFound
	}
	return http.StatusInternalServerError
}

// apiError is what went wrong, as it is sent.
type apiError struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a client that has gone gets nothing
}

func fail(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(apiError{err.Error()})
}
