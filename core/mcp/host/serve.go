package host

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
	"capsem/core/mcp/peer"
)

// Note takes what the aggregator tells. All of it comes from servers, by way of a process that a server may have broken into.
func (h *Host) Note(method string, params []byte) {
	switch method {
	case aggregator.Offered:
		var o aggregator.Offering
		if err := peer.Unmarshal(params, &o); err == nil && h.has(o.Server) {
			h.cfg.Listener.Offered(&o)
		}
	case aggregator.Event:
		var e aggregator.Happening
		if err := peer.Unmarshal(params, &e); err == nil && h.has(e.Server) {
			h.happened(&e)
		}
	case aggregator.Close:
		var t aggregator.Target
		if err := peer.Unmarshal(params, &t); err == nil {
			h.end(t.Number)
		}
	}
}

// maxEvents bounds the notifications of one server that wait to be handed on; what comes when there are so many is dropped.
const maxEvents = 128

// happened hands a notification on, after those of the same server that came before. Nothing else waits for that: a server may send
// notifications without end, and a client may read none of them.
func (h *Host) happened(e *aggregator.Happening) {
	h.mu.Lock()
	waiting := h.events[e.Server]
	if waiting == nil && h.ctx.Err() == nil {
		waiting = make(chan *aggregator.Happening, maxEvents)
		h.events[e.Server] = waiting
		h.work.Go(func() {
			for {
				select {
				case e := <-waiting:
					h.cfg.Listener.Happened(e)
				case <-h.ctx.Done():
					return
				}
			}
		})
	}
	h.mu.Unlock()
	select {
	case waiting <- e:
	default:
	}
}

func (h *Host) has(server string) bool {
	_, err := h.definition(server)
	return err == nil
}

// definition is that of a server; the built-in one's is empty.
func (h *Host) definition(server string) (mcp.Definition, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, ok := h.defs[server]
	if !ok && (server != mcp.Local || h.cfg.Builtin == nil) {
		return d, fmt.Errorf("there is no MCP server %.60q", server)
	}
	return d, nil
}

// Call serves the aggregator.
func (h *Host) Call(ctx context.Context, method string, params []byte) ([]byte, error) {
	switch method {
	case aggregator.Open:
		var t aggregator.Target
		if err := peer.Unmarshal(params, &t); err != nil {
			return nil, err //nolint:wrapcheck // says what is wrong
		}
		return nil, h.open(t)
	case aggregator.Resolve:
		var n aggregator.Name
		if err := peer.Unmarshal(params, &n); err != nil {
			return nil, err //nolint:wrapcheck // as above
		}
		return h.resolve(ctx, &n)
	case aggregator.Dress:
		var t aggregator.Target
		if err := peer.Unmarshal(params, &t); err != nil {
			return nil, err //nolint:wrapcheck // as above
		}
		d, err := h.definition(t.Server)
		if err != nil {
			return nil, err
		}
		return h.dress(ctx, &d)
	case aggregator.Renew:
		var t aggregator.Worn
		if err := peer.Unmarshal(params, &t); err != nil {
			return nil, err //nolint:wrapcheck // as above
		}
		d, err := h.definition(t.Server)
		if err == nil && (d.URL == "" || h.cfg.Secrets == nil) {
			err = fmt.Errorf("nobody signs in to MCP server %s", t.Server)
		}
		if err == nil {
			err = h.cfg.Secrets.Renew(ctx, mcp.LoginSecret(d.Name), t.Mark)
		}
		if err != nil {
			return nil, err
		}
		return h.dress(ctx, &d)
	case aggregator.Ask:
		var q aggregator.Question
		if err := peer.Unmarshal(params, &q); err != nil {
			return nil, err //nolint:wrapcheck // as above
		}
		d, err := h.definition(q.Server)
		if err != nil {
			return nil, err
		}
		if may := q.Method == "sampling/createMessage" && d.Sampling || q.Method == "elicitation/create" && d.Elicitation; !may {
			return nil, peer.Errorf(peer.CodeRefused, "the owner does not let this server ask that")
		}
		answer, err := h.cfg.Listener.Asked(ctx, &q)
		if err != nil {
			return nil, err //nolint:wrapcheck // the client's words
		}
		return peer.Marshal(answer) //nolint:wrapcheck // says what it did
	}
	return nil, peer.Errorf(-32601, "there is no %.60q", method)
}

// dress gives the headers of a request to a server.
func (h *Host) dress(ctx context.Context, d *mcp.Definition) ([]byte, error) {
	headers, mark, err := h.headers(ctx, d)
	if err != nil {
		return nil, err
	}
	return peer.Marshal(aggregator.Clothes{Headers: headers, Mark: mark}) //nolint:wrapcheck // says what it did
}

// resolve gives the addresses of a server's host. Names of no server are not looked up, and a public name does not lead to a private
// address.
func (h *Host) resolve(ctx context.Context, n *aggregator.Name) ([]byte, error) {
	d, err := h.definition(n.Server)
	if err != nil {
		return nil, err
	}
	literal, ok := h.expects(&d, n.Host)
	if !ok {
		return nil, fmt.Errorf("%.80q is not the host of MCP server %s", n.Host, n.Server)
	}
	addrs, err := h.cfg.lookup(ctx, n.Host)
	if err != nil {
		return nil, fmt.Errorf("the address of %s cannot be found: %w", n.Host, err)
	}
	out := aggregator.Name{}
	for _, a := range addrs {
		addr, ok := netip.AddrFromSlice(a.IP)
		if addr = addr.Unmap(); !ok || len(out.Addrs) >= 16 {
			continue
		}
		if !literal && !d.Private && inside(addr) {
			return nil, fmt.Errorf("%s has the private address %s: private = true in its definition would allow that", n.Host, addr)
		}
		out.Addrs = append(out.Addrs, addr.String())
	}
	return peer.Marshal(out) //nolint:wrapcheck // says what it did
}

// expects reports whether a host is that of the server, or the proxy's, and whether the owner has written an address, or localhost.
func (h *Host) expects(d *mcp.Definition, host string) (literal, ok bool) {
	for _, text := range []string{d.URL, h.cfg.Proxy} {
		u, err := url.Parse(text)
		if err != nil || text == "" || !strings.EqualFold(u.Hostname(), host) {
			continue
		}
		return strings.EqualFold(host, "localhost") || net.ParseIP(host) != nil || text == h.cfg.Proxy, true
	}
	return false, false
}

// inside reports whether an address is not one of the world's.
func inside(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsMulticast() || a.IsUnspecified() ||
		netip.MustParsePrefix("100.64.0.0/10").Contains(a) || netip.MustParsePrefix("0.0.0.0/8").Contains(a) || netip.MustParsePrefix("192.0.0.0/24").Contains(a) ||
		netip.MustParsePrefix("198.18.0.0/15").Contains(a) || netip.MustParsePrefix("240.0.0.0/4").Contains(a) || netip.MustParsePrefix("64:ff9b::/96").Contains(a) ||
		netip.MustParsePrefix("2002::/16").Contains(a)
}
