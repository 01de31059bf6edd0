package aggregator

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"capsem/core/mcp/peer"
)

// dressed adds headers to requests, bounds answers, and says what became of requests that have none.
type dressed struct {
	next http.RoundTripper
	s    *session
}

// RoundTrip makes one request. A server that does not take its sign-in any more has not carried the request out: it is made once more
// with the next token, if there is one.
func (d *dressed) RoundTrip(req *http.Request) (*http.Response, error) {
	// An older server says where requests are to go: nothing of the owner's goes elsewhere.
	if at, err := url.Parse(d.s.server.URL); err != nil || !strings.EqualFold(req.URL.Host, at.Host) || req.URL.Scheme != at.Scheme {
		return nil, peer.Errorf(peer.CodeFailed, "MCP server %s wants requests to another place than its own, %.100s://%.200s", d.s.server.Name, req.URL.Scheme, req.URL.Host)
	}
	var c Clothes
	if d.s.server.Dressed {
		if err := d.s.a.ask(req.Context(), Dress, Target{Server: d.s.server.Name}, &c); err != nil {
			return nil, err
		}
	}
	resp, err := d.send(req, &c)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return d.said(resp, err, req)
	}
	if again, ok := rewound(req); ok && c.Mark != "" {
		mark := c.Mark
		if d.s.a.ask(req.Context(), Renew, Worn{Server: d.s.server.Name, Mark: mark}, &c) == nil && c.Mark != mark {
			discard(resp)
			resp, err = d.send(again, &c)
		}
	}
	if err != nil || resp.StatusCode != http.StatusUnauthorized || req.Method != http.MethodPost {
		return d.said(resp, err, req)
	}
	discard(resp)
	return nil, d.unauthorized(&c)
}

// unauthorized says what the owner can do. The server has refused the request, so it was not carried out.
func (d *dressed) unauthorized(c *Clothes) error {
	name := d.s.server.Name
	switch {
	case c.Mark != "":
		return peer.Errorf(peer.CodeFailed, "MCP server %s does not take its sign-in any more, and the call was not carried out; its owner has to sign in again: capsem mcp login %s", name, name)
	case len(c.Headers) > 0:
		return peer.Errorf(peer.CodeFailed, "MCP server %s refuses the headers that its owner has given it, and the call was not carried out; they are in capsem's settings (mcp.servers.%s), or capsem mcp login %s", name, name, name)
	}
	return peer.Errorf(peer.CodeFailed, "MCP server %s wants a sign-in, and the call was not carried out; its owner has to do that: capsem mcp login %s", name, name)
}

// send makes a request once.
func (d *dressed) send(req *http.Request, c *Clothes) (*http.Response, error) {
	req = req.Clone(req.Context())
	for name, value := range c.Headers {
		req.Header.Set(name, value)
	}
	return d.next.RoundTrip(req) //nolint:wrapcheck // a RoundTripper hands errors through
}

// said bounds an answer, and makes an error one for the caller: the SDK would say that nothing was sent.
func (d *dressed) said(resp *http.Response, err error, req *http.Request) (*http.Response, error) {
	if err == nil {
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			resp.Body = &bounded{ReadCloser: resp.Body, left: maxMessage}
		}
		return resp, nil
	}
	if _, known := errors.AsType[*peer.Error](err); known || req.Context().Err() != nil || errors.Is(err, context.Canceled) {
		return nil, err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return nil, peer.Errorf(peer.CodeFailed, "MCP server %s cannot be reached: %s", d.s.server.Name, clip(err.Error(), 300))
	}
	d.s.log.Debug("a request was lost", "error", err)
	return nil, peer.Errorf(peer.CodeLost, "the connection to MCP server %s ended before it answered: whether the call was carried out is not known, and it is not repeated", d.s.server.Name)
}

// rewound is a request as it was before it was made.
func rewound(req *http.Request) (*http.Request, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, false
	}
	again := req.Clone(req.Context())
	again.Body = body
	return again, true
}

// discard reads a little of an answer, so that its connection can be used again, and closes it.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // whatever it says, it is not used
	_ = resp.Body.Close()
}
