package admin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
)

const (
	answerBytes  = 64 << 20 // of an answer that is read as a whole
	problemBytes = 1 << 20
	answerMax    = 15 * time.Second // of what is answered at once, from connecting on
)

// Client asks a Server. It may be used by several goroutines. What a Server says is wrong is a *Problem; where none answers
// the error is an *UnreachableError; where one does not answer in time, a *SilentError. What may take long is not cut, once the process has
// shown that it answers.
type Client struct {
	base  string
	where string // as people know it
	token string
	http  *http.Client

	patience time.Duration // answerMax, but for tests

	// StartWait is how long a request is asked again of a process that says it is starting, which has done nothing of it.
	StartWait time.Duration

	// OnSilence, where there is one, hears that a process does not answer while what goes on in it is waited for: see Outwait.
	OnSilence func(*SilentError)
}

// silentPause is between two questions of who outwaits a process that does not answer: it may refuse each at once.
const silentPause = 100 * time.Millisecond

// startingLook is how often it is asked again.
const startingLook = 50 * time.Millisecond

// NewClient returns a client of the socket at a path. It connects when it is first asked.
func NewClient(socket string) *Client {
	return &Client{base: "http://localhost", where: socket, patience: answerMax, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeoutMax}).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Remote says how a Server is asked over TCP.
type Remote struct {
	URL       string // http://127.0.0.1:9600, https://…
	TokenFile string // "" sends none
	CAFile    string // that has signed the server's certificate; "" takes the system's
	CertFile  string // the client's own certificate, for mTLS; "" shows none
	KeyFile   string
}

// NewRemote returns a client of a server over TCP. A token is sent only over TLS, or within this machine.
func NewRemote(r Remote) (*Client, error) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("admin: %q is no server's address; it is such as http://127.0.0.1:9600 or https://host:9600", r.URL)
	}
	c := &Client{base: u.Scheme + "://" + u.Host, where: r.URL, patience: answerMax}
	if r.TokenFile != "" {
		if u.Scheme != "https" && !loopback(u.Hostname()) {
			return nil, fmt.Errorf("admin: the token would be sent to %s in the clear; use https", u.Host)
		}
		if c.token, err = Token(r.TokenFile); err != nil {
			return nil, err
		}
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	if r.CAFile != "" {
		if conf.RootCAs, err = certificates(r.CAFile); err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
	}
	if r.CertFile != "" || r.KeyFile != "" {
		cert, err := keyPair(r.CertFile, r.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("admin: the client's certificate: %w", err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	c.http = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: conf, DialContext: (&net.Dialer{Timeout: 5 * dialTimeoutMax}).DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token goes nowhere else
	}
	return c, nil
}

// UnreachableError says that nobody answers.
type UnreachableError struct {
	Where string
	Err   error
}

func (e *UnreachableError) Unwrap() error { return e.Err }
func (e *UnreachableError) Error() string {
	why := e.Err
	var sys syscall.Errno
	if errors.As(e.Err, &sys) {
		why = sys // the rest of it says once more where
	}
	return fmt.Sprintf("no process answers at %s: %v", e.Where, why)
}

// SilentError says that a process takes what it is asked, and does not answer: it has been stopped, or is too busy.
type SilentError struct {
	Where string
	After time.Duration
}

func (e *SilentError) Error() string {
	if e.After == 0 {
		return fmt.Sprintf("the process at %s takes no more connections: it has been stopped (SIGSTOP), or is too busy", e.Where)
	}
	return fmt.Sprintf("the process at %s has not answered within %v: it has been stopped (SIGSTOP), or is too busy", e.Where, e.After)
}

// Outwait reports, after a pause, whether err is only that the process does not answer, while ctx goes on: what is waited for there is not over,
// and may be asked for again. OnSilence hears of it once for each said, which is false at first.
func (c *Client) Outwait(ctx context.Context, err error, said *bool) bool {
	var silent *SilentError
	if !errors.As(err, &silent) || ctx.Err() != nil {
		return false
	}
	if !*said && c.OnSilence != nil {
		c.OnSilence(silent)
	}
	*said = true
	select {
	case <-ctx.Done():
	case <-time.After(silentPause):
	}
	return true
}

// Status returns how everything stands.
func (c *Client) Status(ctx context.Context) (st runtime.Status, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/status", nil, &st)
	return st, err
}

// Topics returns how every topic stands.
func (c *Client) Topics(ctx context.Context) (ts []bus.TopicStat, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/topics", nil, &ts)
	return ts, err
}

// Tail calls f with records of a topic, as runtime.Tail does, until they are all there are or, if it follows, ctx ends.
func (c *Client) Tail(ctx context.Context, q runtime.Tail, f func(runtime.TopicRecord) error) error {
	v := url.Values{"topic": {q.Topic}, "last": {strconv.Itoa(q.Last)}, "partition": {strconv.Itoa(q.Partition)}, "follow": {strconv.FormatBool(q.Follow)}}
	if q.From != nil {
		v.Set("from", q.From.String())
	}
	if q.Begin != nil {
		v.Set("begin", q.Begin.String())
	}
	if q.End != nil {
		v.Set("end", q.End.String())
	}
	return lines(ctx, c, "/v1/records?"+v.Encode(), f)
}

// Logs calls f with the newest messages about a job, until they are all there are or, if it follows, ctx ends.
func (c *Client) Logs(ctx context.Context, job string, last int, follow bool, f func(runtime.LogLine) error) error {
	v := url.Values{"last": {strconv.Itoa(last)}, "follow": {strconv.FormatBool(follow)}}
	return lines(ctx, c, jobPath(job, "/logs?"+v.Encode()), f)
}

// Events calls f with what happens to jobs, and the id that after takes to go on behind it, until ctx ends or f returns an error.
// after is "" for what happens from now on, "0" for all that is kept. A *LostError says that some are gone; ask how things stand, and again from "0".
func (c *Client) Events(ctx context.Context, after string, f func(id string, e runtime.Event) error) error {
	if err := c.alive(ctx); err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodGet, "/v1/events?"+url.Values{"after": {after}}.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var id, name string
	for in := bufio.NewReader(resp.Body); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return &UnreachableError{Where: c.where, Err: err}
		}
		field, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			name = value
		case "data":
			if err := event(name, id, []byte(value), f); err != nil {
				return err
			}
		}
	}
}

// event hands one event on.
func event(name, id string, data []byte, f func(string, runtime.Event) error) error {
	var e runtime.Event
	var into any = &e
	lost, p := &LostError{}, &Problem{}
	switch name {
	case "lost":
		into = &lost.Lost
	case "problem":
		into = p
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("admin: an event: %w", err)
	}
	switch name {
	case "lost":
		return lost
	case "problem":
		return p
	}
	return f(id, e)
}

// LostError says that events are gone.
type LostError struct{ Lost }

func (e *LostError) Error() string { return "admin: events are gone: " + e.Why }

// lines calls f with each line of an answer.
func lines[T any](ctx context.Context, c *Client, path string, f func(T) error) error {
	if err := c.alive(ctx); err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var line json.RawMessage
		if err := dec.Decode(&line); err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return &UnreachableError{Where: c.where, Err: err}
		}
		var p Problem
		if json.Unmarshal(line, &p) == nil && p.Type != "" { // what went wrong behind the first line
			return &p
		}
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return fmt.Errorf("admin: the answer to %s: %w", path, err)
		}
		if err := f(v); err != nil {
			return err
		}
	}
}

// call asks with a body, or none, and reads an answer that is JSON and comes at once; into is nil where none is wanted.
func (c *Client) call(ctx context.Context, method, path string, body, into any, header ...string) error {
	return c.callWithin(ctx, c.patience, method, path, body, into, header...)
}

// callWithin is call of what is answered within a bound.
func (c *Client) callWithin(ctx context.Context, most time.Duration, method, path string, body, into any, header ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, &SilentError{c.where, most})
	defer cancel()
	return c.read(ctx, method, path, body, into, header...)
}

// callLong is call of what is answered when it is done.
func (c *Client) callLong(ctx context.Context, method, path string, body, into any, header ...string) error {
	if err := c.alive(ctx); err != nil {
		return err
	}
	return c.read(ctx, method, path, body, into, header...)
}

// alive asks whether the process answers at all, before something is asked that may take long.
func (c *Client) alive(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "/livez", nil, nil)
}

// ended is why ctx has.
func ended(ctx context.Context) error {
	var silent *SilentError
	if errors.As(context.Cause(ctx), &silent) {
		return silent
	}
	return ctx.Err()
}

func (c *Client) read(ctx context.Context, method, path string, body, into any, header ...string) error {
	resp, err := c.do(ctx, method, path, body, header...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, problemBytes)) // so that the connection can be used again
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerBytes)).Decode(into); err != nil {
		if ctx.Err() != nil {
			return ended(ctx)
		}
		return fmt.Errorf("admin: the answer to %s: %w", path, err)
	}
	return nil
}

// do asks, and asks again, within StartWait, who is starting. It returns an answer that is one. A header's name is
// followed by its value; one without is left out.
func (c *Client) do(ctx context.Context, method, path string, body any, header ...string) (*http.Response, error) {
	for began := time.Now(); ; {
		resp, err := c.once(ctx, method, path, body, header...)
		var p *Problem
		if !errors.As(err, &p) || p.Kind() != KindStarting || time.Since(began)+startingLook > c.StartWait {
			return resp, err
		}
		select {
		case <-time.After(startingLook):
		case <-ctx.Done():
			return nil, ended(ctx)
		}
	}
}

func (c *Client) once(ctx context.Context, method, path string, body any, header ...string) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for pair := range slices.Chunk(header, 2) {
		if pair[1] != "" {
			req.Header.Set(pair[0], pair[1])
		}
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
			<-ctx.Done() // connecting has the same end, and may see it first
		}
		if ctx.Err() != nil {
			return nil, ended(ctx)
		}
		if errors.Is(err, syscall.EAGAIN) { // so many wait to be let in that there is no room for another
			return nil, &SilentError{Where: c.where}
		}
		if why := plainly(err); strings.Contains(why.Error(), "remote error: tls: ") { // it answers, and does not take who asks
			return nil, problem(http.StatusUnauthorized, KindUnauthorized, "%s does not take this client's certificate, or wants one: %v", c.where, why)
		}
		return nil, &UnreachableError{Where: c.where, Err: plainly(err)}
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	p := &Problem{}
	if json.NewDecoder(io.LimitReader(resp.Body, problemBytes)).Decode(p) != nil || !strings.HasPrefix(p.Type, kindPrefix) {
		return nil, fmt.Errorf("admin: %s answers %s to %s: is it a Sidestream process?", c.where, resp.Status, path)
	}
	return nil, p
}

// plainly takes what net/http puts before an error, and says what to do about a certificate.
func plainly(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%w; name the authority that signed it as the context's ca_file", err)
	}
	return err
}
