package mitm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"capsem/core/policy"
)

// Rules of refusals that are not the policy's.
const (
	ruleSNI  = "capsem:server-name"
	ruleHost = "capsem:host-mismatch"
)

var (
	// errPass says that TLS is to be passed on as it is.
	errPass = errors.New("not to be looked into")
	// errServerName is a name in a client's hello that the connection cannot be for.
	errServerName = errors.New("server name refused")
)

// unrecognizedName is the TLS alert of that name (RFC 6066), fatal.
var unrecognizedName = []byte{21, 3, 3, 0, 2, 2, 112}

// tlsConfig ends TLS for clients that are to speak one protocol.
func (s *Server) tlsConfig(proto string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{proto},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			p, ok := h.Conn.(*peeked)
			if !ok {
				return nil, errServerName
			}
			return s.cfg.Authority.Leaf(p.name) //nolint:wrapcheck // says what it did
		},
	}
}

// tls ends TLS, or passes it on if that is what is wanted of its host.
func (c *conn) tls(ctx context.Context) {
	c.scheme, c.kind = "https", "https"
	c.in.hold = true
	_ = c.in.SetDeadline(time.Now().Add(c.s.limits.Head))
	outer := &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) { return c.hello(ctx, h) }}
	tc := tls.Server(c.in, outer)
	err := tc.HandshakeContext(ctx)
	_ = c.in.SetDeadline(time.Time{})
	switch {
	case errors.Is(err, errPass):
		c.in.rewind()
		c.tunnel(ctx)
	case err != nil:
		if !c.noted.Load() {
			c.note("https", policy.Verdict{}, fmt.Errorf("TLS with the client: %w", err), 0, 0)
		}
		if c.in.mute {
			_, _ = c.in.Conn.Write(unrecognizedName) // a courtesy
		}
	case tc.ConnectionState().NegotiatedProtocol == "h2":
		c.kind = "h2"
		c.serveOn(ctx, c.s.in2, tc, tc)
	default:
		c.http1(ctx, tc)
	}
}

// hello decides by a client's hello what becomes of the connection. A hello may have another, encrypted, inside (ECH); the outer one counts.
func (c *conn) hello(ctx context.Context, h *tls.ClientHelloInfo) (*tls.Config, error) {
	if err := c.destination(h.ServerName); err != nil {
		c.in.mute = true
		return nil, err
	}
	_ = c.in.SetDeadline(time.Time{}) // what follows may take the owner's time
	defer func() { _ = c.in.SetDeadline(time.Now().Add(c.s.limits.Head)) }()
	if c.bypassed(ctx) {
		c.in.mute = true
		return nil, errPass
	}
	c.in.hold, c.in.kept, c.in.name = false, nil, c.host
	if c.choose(ctx, h.SupportedProtos) == "h2" {
		return c.s.tls2, nil
	}
	return c.s.tls1, nil
}

// destination takes the server name of a hello as where the connection is for, unless it stands for another name.
func (c *conn) destination(serverName string) error {
	if serverName == "" {
		return nil
	}
	name, err := policy.NormalHost(serverName)
	switch {
	case err != nil:
		c.note("https", refusal(policy.RuleMalformed, fmt.Sprintf("%.80q is no server name", serverName)), errServerName, 0, 0)
		return errServerName
	case name == c.host:
		return nil
	case c.standIn:
		why := fmt.Sprintf("the connection is for %s, but TLS asks for %s", c.host, name)
		c.note("https", refusal(ruleSNI, why), errServerName, 0, 0)
		return errServerName
	}
	if _, err := netip.ParseAddr(name); err == nil {
		c.note("https", refusal(ruleSNI, "an address is no server name"), errServerName, 0, 0)
		return errServerName
	}
	c.host = name // the address is not used: the host finds the name's own
	return nil
}

// bypassed reports whether TLS is passed on as it is: the owner wants that for the host, and the policy allows the host whatever requests
// may be inside. Where a rule has to see them, they are looked at.
func (c *conn) bypassed(ctx context.Context) bool {
	if !slices.ContainsFunc(c.s.bypass, func(p policy.HostPattern) bool { return p.Match(c.host) }) {
		return false
	}
	c.passed = c.s.cfg.Policy.Judge(ctx, c.asked("https"))
	return c.passed.Effect == policy.Allow
}

// choose says what a client is to speak: what its host does, if the client can.
func (c *conn) choose(ctx context.Context, offered []string) string {
	const h1 = "http/1.1"
	if !slices.Contains(offered, "h2") {
		return h1
	}
	if !slices.Contains(offered, h1) {
		return "h2"
	}
	to := place{c.host, c.port}
	if proto, ok := c.s.known.get(to); ok {
		return proto
	}
	// A host that the owner is to be asked about, or that is refused, is not connected to before there is a request.
	if c.s.cfg.Policy.Possible(c.asked("https")).Effect != policy.Allow {
		return h1
	}
	proto, err := c.s.pool.prime(ctx, c)
	if err != nil {
		c.s.log.Debug("proxy: cannot ask a host what it speaks", "host", c.host, "err", err)
		return h1 // the request will say what is wrong
	}
	return proto
}
