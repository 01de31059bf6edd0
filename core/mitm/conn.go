package mitm

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"capsem/core/approval"
	"capsem/core/link"
	"capsem/core/mitm/flow"
	"capsem/core/mitm/judge"
	"capsem/core/mitm/record"
	"capsem/core/mitm/strict"
	"capsem/core/policy"
	"capsem/core/proto"
)

// conn is one connection of the guest.
type conn struct {
	s    *Server
	open *proto.NetworkOpen
	// in is the connection, with what has been read of it ahead.
	in *peeked
	// host is the name it is for, or the address; standIn says that the address was given for that name. Set before requests are served.
	host    string
	standIn bool
	port    uint16
	// scheme is that of requests: "http" or "https"; kind is how they are recorded.
	scheme, kind string
	began        time.Time
	// strict checks the bytes of HTTP/1; nil for other protocols.
	strict *strict.Reader
	// passed is the verdict about TLS that is passed on.
	passed policy.Verdict
	// handled counts the requests that reached the handler.
	handled atomic.Int64
	// noted says that a row about the connection itself has been written; aborted that its client is to see an error, not an end.
	noted, aborted atomic.Bool
}

// Serve serves one connection that the guest has opened and waits for its end; st is closed then. open is taken as validated.
func (s *Server) Serve(ctx context.Context, st net.Conn, open proto.NetworkOpen) {
	select {
	case s.conns <- struct{}{}:
		defer func() { <-s.conns }()
	default:
		reset(st)
		return
	}
	s.serving.Add(1)
	defer s.serving.Done()
	defer st.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unlink := context.AfterFunc(s.ctx, cancel)
	defer unlink()
	stop := context.AfterFunc(ctx, func() { reset(st) })
	defer stop()
	dest, err := netip.ParseAddrPort(open.Dest)
	if err != nil {
		reset(st)
		return
	}
	c := &conn{s: s, open: &open, in: newPeeked(st), port: dest.Port(), began: time.Now()}
	addr := dest.Addr().Unmap().WithZone("")
	if c.host, c.standIn = s.cfg.Names.Name(addr); !c.standIn {
		c.host = addr.String()
	}
	c.serve(approval.WithProcess(ctx, &open.Process))
}

// reset ends a connection so that its client sees an error.
func reset(st net.Conn) {
	switch c := st.(type) {
	case link.Refuser:
		c.Refuse()
	case *net.TCPConn:
		_ = c.SetLinger(0)
		_ = c.Close()
	default:
		_ = st.Close()
	}
}

// asked is what the policy can be asked about the connection as such.
func (c *conn) asked(scheme string) *policy.Request {
	return &policy.Request{
		VM: c.s.cfg.VM, Host: c.host, Port: c.port, Scheme: scheme, Process: c.open.Process.Name, Exe: c.open.Process.Exe, BodySize: -1,
	}
}

// possible reports whether anything of a scheme may be allowed on the connection.
func (c *conn) possible(scheme string) bool {
	return c.s.cfg.Policy.Possible(c.asked(scheme)).Effect != policy.Deny
}

// serve finds out what the connection speaks and lets that be served.
func (c *conn) serve(ctx context.Context) {
	raw := c.possible("tcp")
	web := c.possible("https") || c.possible("http")
	if raw && !web {
		c.raw(ctx)
		return
	}
	switch c.sniff(raw) {
	case speaksTLS:
		if raw && !c.possible("https") {
			c.raw(ctx)
			return
		}
		c.tls(ctx)
	case speaksHTTP1:
		if raw && !c.possible("http") {
			c.raw(ctx)
			return
		}
		c.scheme, c.kind = "http", "http"
		c.http1(ctx, c.in)
	case speaksHTTP2:
		if raw && !c.possible("http") {
			c.raw(ctx)
			return
		}
		c.scheme, c.kind = "http", "h2"
		c.serveOn(ctx, c.s.in2, c.in, c.in)
	case speaksOther:
		c.raw(ctx)
	case speaksNothing:
		if !web && !raw {
			c.note("tcp", c.s.cfg.Policy.Possible(c.asked("")), errSilent, 0, 0)
			reset(c.in.Conn)
		}
	}
}

var errSilent = errors.New("the client said nothing")

// note records the connection itself.
func (c *conn) note(kind string, v policy.Verdict, err error, sent, received int64) {
	f := &flow.Flow{VM: c.s.cfg.VM, Process: &c.open.Process, Host: c.host, Port: c.port, Scheme: c.scheme, Type: kind, Began: c.began}
	f.SetVerdict(v)
	c.noteFlow(f, err, sent, received)
}

func (c *conn) noteFlow(f *flow.Flow, err error, sent, received int64) {
	c.noted.Store(true)
	c.s.cfg.Recorder.RecordNet(record.Connection(f, flow.End{Sent: sent, Received: received, Err: err, At: time.Now()}))
}

// refusal is a verdict about the connection as such that is not the policy's.
func refusal(rule, reason string) policy.Verdict {
	return policy.Verdict{Effect: policy.Deny, RuleID: rule, Reason: reason, BodyLimit: -1}
}

// permit asks the policy about an address for a connection on which a request is to come.
func (c *conn) permit(_ context.Context, addr netip.Addr) error {
	req := c.asked(c.scheme)
	if v := judge.PossibleAt(c.s.cfg.Policy, req, addr); v.Effect == policy.Deny {
		return judge.Refuse(c.s.cfg.Policy, v, req)
	}
	return nil
}
