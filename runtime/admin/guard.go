package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"runtime/debug"
	"strings"
	"time"
)

// class is how a request came in, by which it is let through and counted.
type class uint8

const (
	classSocket class = iota // over the unix socket, which only its owner can open
	classLogin               // over TCP, with a token or a certificate
	classOpen                // over TCP, with neither
)

// access is what a route asks of who calls it.
type access uint8

const (
	accessProbe access = iota // anyone, also where others need a login: it says hardly anything
	accessOpen                // over TCP too, where no login is asked for: it shows neither records nor definitions
	accessLogin               // with a login, or over the socket
)

// route is what the guard knows of an operation.
type route struct {
	access access
	body   bool  // a request may have one
	bytes  int64 // of that
	long   bool  // its answer waits for jobs, or streams
}

type classKey struct{}

// guard lets through what may come in over one listener; all else is answered here.
func (s *Server) guard(l *Listener, way class) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.caught(w, r)
		if p := s.admit(l, way, w, r); p != nil {
			if p.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="sidestream"`)
			}
			if p.Kind() == KindBusy {
				w.Header().Set("Retry-After", "1")
			}
			w.Header().Set("Connection", "close") // with what is left of its body
			send(w, p)
		}
	})
}

// caught answers for a handler that panicked.
func (s *Server) caught(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	s.cfg.Logger.Error("a request failed: this is a bug of ours", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
	send(w, problem(http.StatusInternalServerError, KindInternal, "this is a bug of ours: %v", v)) // too late if an answer has begun
}

// admit serves a request or says why not.
func (s *Server) admit(l *Listener, way class, w http.ResponseWriter, r *http.Request) *Problem {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if p := l.sameSite(way, r); p != nil {
		return p
	}
	_, pattern := s.mux.Handler(r)
	to, known := s.routes[pattern]
	known = known && clean(r.URL.EscapedPath()) // else it would be sent elsewhere, by a page of HTML
	who, failed := l.login(way, r)
	if !s.rates[who].Allow() {
		return problem(http.StatusTooManyRequests, KindBusy, "too many requests; try again later")
	}
	if failed != nil && (!known || to.access != accessProbe) {
		return failed
	}
	if !known {
		return s.noRoute(h, r)
	}
	if who == classOpen && to.access == accessLogin {
		return problem(http.StatusForbidden, KindForbidden, "%s %s is not to be had over TCP without a login; use the unix socket, or start the process with --token-file", r.Method, r.URL.Path)
	}
	if tags, given := r.Header["If-Match"]; given && strings.TrimSpace(strings.Join(tags, "")) == "" {
		return problem(http.StatusBadRequest, KindBadRequest, `If-Match is empty, which no version matches; it takes one version in quotes, such as "0123456789abcdef", or *`)
	}
	if p := s.body(to, w, r); p != nil {
		return p
	}
	if to.long {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.Limits.LongTimeout))
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // all is read; the deadline would end the request's context
	if failed != nil {                                             // a probe where a login is asked for: it gets no details
		r.URL.RawQuery = ""
	}
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), classKey{}, who)))
	return nil
}

// clean reports whether a path is as a route is written: no "//", "/./" or "/../", which a ServeMux answers with another address.
func clean(p string) bool { return p == path.Clean(p) }

// noRoute says what is not there, and in the header what is.
func (s *Server) noRoute(h http.Header, r *http.Request) *Problem {
	var takes []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		if _, pattern := s.mux.Handler(&http.Request{Method: m, URL: r.URL, Host: r.Host}); clean(r.URL.EscapedPath()) && s.routes[pattern] != (route{}) {
			takes = append(takes, m)
		}
	}
	if len(takes) > 0 {
		allow := strings.Join(takes, ", ")
		h.Set("Allow", allow)
		return problem(http.StatusMethodNotAllowed, KindBadRequest, "%s takes %s, not %s", r.URL.Path, allow, r.Method)
	}
	return problem(http.StatusNotFound, KindBadRequest, "there is no %s %s here; /v1/openapi.json lists what there is", r.Method, r.URL.Path)
}

// sameSite refuses what a page in a browser sends: one whose name was made to point here (it calls us by that name), and one
// of another site (browsers say so).
func (l *Listener) sameSite(way class, r *http.Request) *Problem {
	if way != classSocket && !l.called(hostOf(r.Host)) {
		return problem(http.StatusForbidden, KindForbidden, "this is not served to %q; use an address, or a name that the certificate has", r.Host)
	}
	if o := r.Header.Get("Origin"); o != "" {
		if u, err := url.Parse(o); err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return problem(http.StatusForbidden, KindForbidden, "requests of pages from elsewhere (Origin %q) are not answered", o)
		}
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		return problem(http.StatusForbidden, KindForbidden, "requests of pages from elsewhere (Sec-Fetch-Site %s) are not answered", site)
	}
	return nil
}

func hostOf(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// called reports whether a host is this server: no name that somebody else could point here.
func (l *Listener) called(host string) bool {
	if loopback(host) {
		return true
	}
	if names := l.now().names; names != nil && names.VerifyHostname(host) == nil {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil && !l.local
}

// login returns the class that a request belongs to, and why it has no login where one is asked for.
func (l *Listener) login(way class, r *http.Request) (class, *Problem) {
	if way == classSocket {
		return classSocket, nil
	}
	want := l.now().token
	if want == nil {
		if l.mutual { // the handshake has seen to it
			return classLogin, nil
		}
		return classOpen, nil
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	if strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], want[:]) == 1 {
		return classLogin, nil
	}
	if r.Header.Get("Authorization") == "" {
		return classOpen, problem(http.StatusUnauthorized, KindUnauthorized, "a token is needed: the header Authorization: Bearer TOKEN")
	}
	return classOpen, problem(http.StatusUnauthorized, KindUnauthorized, "the token is not the right one")
}

// body reads a request's body, within its bounds, so that what handlers are given is all there and not too deep.
func (s *Server) body(to route, w http.ResponseWriter, r *http.Request) *Problem {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, to.bytes))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return problem(http.StatusRequestEntityTooLarge, KindBadRequest, "the request's body has more than %d bytes", large.Limit)
	case err != nil:
		return problem(http.StatusBadRequest, KindBadRequest, "the request's body: %v", err)
	case len(b) == 0:
		return nil
	case !to.body: // what somebody asks for in it would be passed over
		return problem(http.StatusBadRequest, KindBadRequest, "%s %s takes no body; /v1/openapi.json says what it takes in its query", r.Method, r.URL.Path)
	}
	if media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(media) != "application/json" {
		return problem(http.StatusUnsupportedMediaType, KindBadRequest, "a body is application/json, not %q", media)
	}
	if err := checkDepth(b, s.cfg.Limits.Depth); err != nil {
		return problem(http.StatusBadRequest, KindBadRequest, "the request's body: %v", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return nil
}

// checkDepth counts brackets outside strings, before anything is made of them.
func checkDepth(b []byte, most int) error {
	depth, inside := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inside && c == '\\':
			i++
		case c == '"':
			inside = !inside
		case inside:
		case c == '[' || c == '{':
			if depth++; depth > most {
				return fmt.Errorf("JSON of more than %d levels, at byte %d", most, i)
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return nil
}
