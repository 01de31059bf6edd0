// Package client is the Go client of the local API on run/service.sock. Its methods mirror the routes of core/api; their
// errors are faults with the service's own words, fault.Unavailable when no service answers.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"capsem/core/api"
	"capsem/core/buildinfo"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/safesocket"
)

// maxReply bounds a JSON answer, in bytes: a buffered exec may carry two streams of api.MaxBufferedOutput, as JSON text.
const maxReply = 128 << 20

// Options change how the service is found and started.
type Options struct {
	// Executable is started as the service by EnsureService; empty means this program.
	Executable string
	// Getenv gives the service its environment; nil means os.Getenv.
	Getenv func(string) string
}

// Client speaks to the service of one installation. It may be used by many goroutines.
type Client struct {
	home paths.Home
	opts Options
	http *http.Client
	// wait bounds EnsureService.
	wait time.Duration
}

// New returns a client; nothing is connected yet.
func New(home paths.Home, opts Options) *Client {
	c := &Client{home: home, opts: opts, wait: startTime}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableCompression:  true,
		MaxIdleConnsPerHost: 8,
	}}
	return c
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	return safesocket.Dial(ctx, c.home.ServiceSocket()) //nolint:wrapcheck // says what it did
}

// request makes a request; body may be nil.
func request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set(api.VersionHeader, buildinfo.Version)
	return req, nil
}

// do sends a request and turns an error answer into a fault. On success the caller closes the body.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(req.Context(), err)
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, errorOf(resp)
	}
	return resp, nil
}

// unreachable explains why there is no answer.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ask service: %w", context.Cause(ctx))
	}
	if fe, ok := errors.AsType[*fault.Error](err); ok {
		return fe
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	if opErr, ok := errors.AsType[*net.OpError](err); ok && opErr.Op == "dial" {
		return fault.Wrap(err, fault.Unavailable, "the capsem service is not running").WithHint("capsem service start")
	}
	return fault.Wrap(err, fault.Unavailable, "the capsem service went away before it answered").
		WithHint("see %s", c.home.ServiceLog())
}

// errorOf reads the body of an error answer.
func errorOf(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var body api.ErrorBody
	if err != nil || json.Unmarshal(text, &body) != nil || body.Error.Code == "" {
		return fault.New(fault.Internal, "the service answered %s: %.200s", resp.Status, bytes.TrimSpace(text))
	}
	return &fault.Error{Code: fault.Code(body.Error.Code), Message: body.Error.Message, Hint: body.Error.Hint}
}

// call sends in as JSON, unless it is nil, and returns the decoded answer.
func call[Out any](ctx context.Context, c *Client, method, path string, in any) (Out, error) {
	var out Out
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return out, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := request(ctx, method, path, body)
	if err != nil {
		return out, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return answer[Out](c, req)
}

// answer sends a request and decodes its JSON answer.
func answer[Out any](c *Client, req *http.Request) (Out, error) {
	var out Out
	resp, err := c.do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return out, c.unreachable(req.Context(), err)
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, fault.Wrap(err, fault.Internal, "the service's answer is malformed").
			WithHint("it may be of another version: capsem version")
	}
	return out, nil
}

// escape makes a path of words that may hold any character.
func escape(words ...string) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteString("/" + url.PathEscape(w))
	}
	return b.String()
}
