package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
)

// answerBytes bounds an answer that is read as a whole.
const answerBytes = 64 << 20

// Client asks a Server on a unix socket.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the socket at a path. It connects when it is first asked.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeoutMax}).DialContext(ctx, "unix", socket)
		},
	}}}
}

// UnreachableError says that nobody answers.
type UnreachableError struct {
	Socket string
	Err    error
}

func (e *UnreachableError) Unwrap() error { return e.Err }
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("admin: no process answers at %s: %v", e.Socket, e.Err)
}

// AnswerError is an answer that says what went wrong.
type AnswerError struct {
	Status  int // of HTTP; 0 where records had been sent before
	Message string
}

func (e *AnswerError) Error() string { return e.Message }

// Status returns how everything stands.
func (c *Client) Status(ctx context.Context) (st runtime.Status, err error) {
	err = c.get(ctx, "/v1/status", &st)
	return st, err
}

// Topics returns how every topic stands.
func (c *Client) Topics(ctx context.Context) (ts []bus.TopicStat, err error) {
	err = c.get(ctx, "/v1/topics", &ts)
	return ts, err
}

// Tail calls f with records of a topic, as runtime.Tail does, until they are all there are or, if it follows, ctx ends.
func (c *Client) Tail(ctx context.Context, q runtime.Tail, f func(runtime.TopicRecord) error) error {
	v := url.Values{"topic": {q.Topic}, "last": {strconv.Itoa(q.Last)}, "follow": {strconv.FormatBool(q.Follow)}}
	if q.Partition >= 0 {
		v.Set("partition", strconv.Itoa(q.Partition))
	}
	if q.From != nil {
		v.Set("from", q.From.String())
	}
	resp, err := c.do(ctx, "/v1/records?"+v.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var line struct {
			runtime.TopicRecord
			apiError
		}
		if err := dec.Decode(&line); err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return &UnreachableError{Socket: c.socket, Err: err}
		}
		if line.Error != "" {
			return &AnswerError{Message: line.Error}
		}
		if err := f(line.TopicRecord); err != nil {
			return err
		}
	}
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	resp, err := c.do(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerBytes)).Decode(into); err != nil {
		return fmt.Errorf("admin: the answer to %s: %w", path, err)
	}
	return nil
}

// do asks and returns an answer that is one.
func (c *Client) do(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, &UnreachableError{Socket: c.socket, Err: errors.Unwrap(err)}
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var e apiError
	if json.NewDecoder(io.LimitReader(resp.Body, headerBytes)).Decode(&e) != nil || e.Error == "" {
		e.Error = resp.Status
	}
	return nil, &AnswerError{Status: resp.StatusCode, Message: e.Error}
}
