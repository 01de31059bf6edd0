package mitm

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"capsem/core/mitm/flow"
)

const (
	// idleTime is how long a connection to a host is kept without a request, maxIdle how many are kept for one host and protocol.
	idleTime = 75 * time.Second
	maxIdle  = 256
	// continueTime is how long a request waits for the host's 100 Continue, as clients do (RFC 9110 10.1.1).
	continueTime = time.Second
	// connectTime bounds the making of a connection, all addresses and the TLS handshake included.
	connectTime = 40 * time.Second
)

// origin is where requests go: a port of a host, over TLS or not, speaking HTTP/2 or HTTP/1.
type origin struct {
	place
	tls, h2 bool
}

// pool keeps the connections to hosts. Unlike an http.Transport it knows to which address each goes, and asks the policy about that for each
// request, before anything of it is sent.
type pool struct {
	s *Server
	// h1 and h2 only make connections of what they are handed.
	h1, h2 *http.Transport

	mu sync.Mutex
	// idle are HTTP/1 connections without a request, the last used last; shared are all those of HTTP/2.
	idle, shared map[origin][]*upstream
	all          map[*upstream]struct{}
	closed       bool
	stop         chan struct{}
	tidying      sync.WaitGroup
}

// upstream is one connection to a host.
type upstream struct {
	*http.ClientConn
	to origin
	// addrs are what the policy was asked about: the address at the other end, or, through a proxy, all of the name's.
	addrs  []netip.Addr
	remote string
	// written counts the bytes sent, for HTTP/1; used says that it has carried a request.
	written atomic.Int64
	used    atomic.Bool
	// since is when it was last known to be in use, in nanoseconds.
	since atomic.Int64
	// parked says that it is among the idle ones; the pool's lock guards it.
	parked bool
}

type dialledKey struct{}

func newPool(s *Server) *pool {
	p := &pool{s: s, idle: map[origin][]*upstream{}, shared: map[origin][]*upstream{}, all: map[*upstream]struct{}{}, stop: make(chan struct{})}
	handed := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, ok := ctx.Value(dialledKey{}).(net.Conn)
		if !ok {
			return nil, errors.New("no connection was made")
		}
		return conn, nil
	}
	transport := func() *http.Transport {
		return &http.Transport{
			DialContext: handed, DialTLSContext: handed, DisableCompression: true, ExpectContinueTimeout: continueTime,
			MaxResponseHeaderBytes: int64(s.limits.HeaderBytes), Protocols: new(http.Protocols), WriteBufferSize: 16 << 10, ReadBufferSize: 16 << 10,
		}
	}
	p.h1, p.h2 = transport(), transport()
	p.h1.Protocols.SetHTTP1(true)
	p.h2.Protocols.SetHTTP2(true)
	p.h2.Protocols.SetUnencryptedHTTP2(true)
	p.h2.HTTP2 = &http.HTTP2Config{
		MaxReceiveBufferPerConnection: 3 << 20, MaxReceiveBufferPerStream: 1 << 20, MaxReadFrameSize: 64 << 10, SendPingTimeout: 45 * time.Second,
		MaxDecoderHeaderTableSize: 16 << 10, MaxEncoderHeaderTableSize: 16 << 10,
	}
	p.tidying.Go(p.tidy)
	return p
}

// RoundTrip sends a request to its host.
func (p *pool) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchangeOf(req.Context())
	if x == nil {
		return nil, errNoExchange
	}
	to := origin{place{x.conn.host, x.conn.port}, x.conn.scheme == "https", x.conn.kind == "h2"}
	for try := 0; ; try++ {
		up, err := p.get(req.Context(), x, to, try > 0)
		if err != nil {
			return nil, asUpstream(err)
		}
		x.flow.SetRemote(up.remote)
		p.s.judge.Goes(x.flow, up.addrs)
		before, reused := up.written.Load(), up.used.Swap(true)
		up.touch()
		res, err := up.RoundTrip(req)
		up.touch()
		if err == nil {
			return res, nil
		}
		if !reused || try > 0 || !again(req, x, up.written.Load() != before) {
			return nil, asUpstream(err)
		}
	}
}

// RoundTrip sends a request of a modifier's own to the host of the request whose context it has, by the same way: each address is judged, and what is
// sent is not recorded as a request of the guest. Modifiers do not see it.
func (s *Server) RoundTrip(req *http.Request) (*http.Response, error) { return s.pool.RoundTrip(req) }

// asUpstream marks a failure of the host. Refusals stay what they are.
func asUpstream(err error) error {
	if _, refused := errors.AsType[*flow.Refusal](err); refused {
		return err
	}
	return &upstreamError{err}
}

// again reports whether a request that failed on a connection which had been idle may be sent once more: the host may have closed that
// meanwhile. What may have had an effect is not repeated.
func again(req *http.Request, x *exchange, wrote bool) bool {
	if req.Context().Err() != nil || x.socket || x.status != 0 || req.Body != nil && req.Body != http.NoBody {
		return false // a body has been closed with the connection
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return !wrote && !x.conn.h2()
}

func (c *conn) h2() bool { return c.kind == "h2" }

// get gives a connection that has room for the request, which is reserved, and that the policy lets it use.
func (p *pool) get(ctx context.Context, x *exchange, to origin, fresh bool) (*upstream, error) {
	for !fresh {
		up := p.take(to)
		if up == nil {
			break
		}
		if p.permitted(ctx, x, up) {
			return up, nil
		}
		up.Release()
		fresh = true // dialling finds out what may be used, and says why not
	}
	permit := func(ctx context.Context, addr netip.Addr) error { return p.s.judge.Address(ctx, x.flow, addr) }
	verdict := x.flow.Verdict()
	up, err := p.dial(ctx, to, permit)
	if err != nil {
		return nil, err
	}
	x.flow.SetVerdict(verdict) // that of an address which was passed over is not the request's
	if err := up.Reserve(); err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	p.add(up)
	return up, nil
}

// permitted asks the policy whether a request may go where a connection goes. It has no question for the owner here: an ask that was
// approved holds on.
func (p *pool) permitted(ctx context.Context, x *exchange, up *upstream) bool {
	verdict := x.flow.Verdict()
	for _, addr := range up.addrs {
		if p.s.judge.Address(ctx, x.flow, addr) != nil {
			x.flow.SetVerdict(verdict)
			return false
		}
	}
	return true
}

// take gives a connection with a reserved place for a request, nil if there is none.
func (p *pool) take(to origin) *upstream {
	if !to.h2 {
		for {
			up := p.pop(to)
			if up == nil || up.Reserve() == nil {
				return up
			}
		}
	}
	p.mu.Lock()
	list := slices.Clone(p.shared[to])
	p.mu.Unlock()
	for _, up := range slices.Backward(list) {
		if up.Reserve() == nil {
			return up
		}
	}
	return nil
}

func (p *pool) pop(to origin) *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[to]
	if len(list) == 0 {
		return nil
	}
	up := list[len(list)-1]
	list[len(list)-1] = nil
	p.idle[to], up.parked = list[:len(list)-1], false
	return up
}

// dial makes a connection.
func (p *pool) dial(ctx context.Context, to origin, permit func(context.Context, netip.Addr) error) (*upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	up := &upstream{to: to}
	seen := func(ctx context.Context, addr netip.Addr) error {
		err := permit(ctx, addr)
		if err == nil {
			up.addrs = append(up.addrs, addr.Unmap())
		}
		return err
	}
	scheme, transport, conn := "http", p.h1, net.Conn(nil)
	if to.tls {
		scheme = "https"
		alpn := []string{"http/1.1"}
		if to.h2 {
			alpn = []string{"h2", "http/1.1"}
		}
		tc, err := p.s.cfg.Dialer.DialTLS(ctx, to.host, to.port, seen, alpn)
		if err != nil {
			return nil, err //nolint:wrapcheck // a fault
		}
		up.to.h2 = tc.ConnectionState().NegotiatedProtocol == "h2"
		conn = tc
	} else {
		var err error
		if conn, err = p.s.cfg.Dialer.Dial(ctx, to.host, to.port, seen); err != nil {
			return nil, err //nolint:wrapcheck // a fault
		}
	}
	up.known(conn.RemoteAddr())
	if up.to.h2 {
		transport = p.h2
	} else {
		conn = &counted{Conn: conn, written: &up.written}
	}
	var err error
	up.ClientConn, err = transport.NewClientConn(context.WithValue(ctx, dialledKey{}, conn), scheme, net.JoinHostPort(to.host, strconv.Itoa(int(to.port))))
	if err != nil {
		_ = conn.Close()
		return nil, err //nolint:wrapcheck // says what it did
	}
	return up, nil
}

// known notes the address at the other end.
func (up *upstream) known(remote net.Addr) {
	up.remote = remote.String()
	up.touch()
	up.addrs = reached(remote, up.addrs)
}

// reached is, of the addresses that the policy was asked about, the one at the other end. Through a proxy it may be any of them.
func reached(remote net.Addr, addrs []netip.Addr) []netip.Addr {
	if at, err := netip.ParseAddrPort(remote.String()); err == nil {
		if addr := at.Addr().Unmap(); slices.Contains(addrs, addr) {
			return []netip.Addr{addr}
		}
	}
	return addrs
}

func (up *upstream) touch() { up.since.Store(time.Now().UnixNano()) }

// counted counts what is written. It also hides a *tls.Conn from the transport of HTTP/1, which needs to know nothing of TLS.
type counted struct {
	net.Conn
	written *atomic.Int64
}

// Write counts.
func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err //nolint:wrapcheck // a net.Conn's
}

// prime connects to a host of which it is not known what it speaks, remembers that, and keeps the connection for the requests to come.
func (p *pool) prime(ctx context.Context, c *conn) (proto string, err error) {
	up, err := p.dial(ctx, origin{place{c.host, c.port}, true, true}, c.permit)
	if err != nil {
		return "", err
	}
	proto = "http/1.1"
	if up.to.h2 {
		proto = "h2"
	}
	p.s.known.set(up.to.place, proto)
	p.add(up)
	if !up.to.h2 {
		p.changed(up)
	}
	return proto, nil
}

// add takes a new connection in.
func (p *pool) add(up *upstream) {
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.all[up] = struct{}{}
		if up.to.h2 {
			p.shared[up.to] = append(p.shared[up.to], up)
		}
	}
	p.mu.Unlock()
	if closed {
		_ = up.Close()
		return
	}
	up.SetStateHook(func(*http.ClientConn) { p.changed(up) })
}

// changed looks at a connection that has become free, or has ended.
func (p *pool) changed(up *upstream) {
	over := up.Err() != nil
	free := !over && !up.to.h2 && up.Available() > 0
	up.touch()
	p.mu.Lock()
	switch {
	case over:
		p.drop(up)
	case free && !p.closed && !up.parked:
		if list := p.idle[up.to]; len(list) < maxIdle {
			p.idle[up.to], up.parked = append(list, up), true
			break
		}
		over = true
		p.drop(up)
	}
	p.mu.Unlock()
	if over {
		_ = up.Close()
	}
}

// drop forgets a connection. The lock is held.
func (p *pool) drop(up *upstream) {
	delete(p.all, up)
	for _, lists := range []map[origin][]*upstream{p.idle, p.shared} {
		list, ok := lists[up.to]
		if i := slices.Index(list, up); i >= 0 {
			list = slices.Delete(list, i, i+1)
			lists[up.to] = list
		}
		if ok && len(list) == 0 {
			delete(lists, up.to)
		}
	}
}

// tidy ends connections that have been idle for long.
func (p *pool) tidy() {
	tick := time.NewTicker(idleTime / 5)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			p.endIdle(now.Add(-idleTime).UnixNano())
		}
	}
}

func (p *pool) endIdle(before int64) {
	var old []*upstream
	p.mu.Lock()
	for up := range p.all {
		if up.since.Load() < before && up.InFlight() == 0 {
			old = append(old, up)
			p.drop(up)
		}
	}
	p.mu.Unlock()
	for _, up := range old {
		_ = up.Close()
	}
}

// close ends all connections.
func (p *pool) close() {
	p.mu.Lock()
	again := p.closed
	p.closed = true
	p.mu.Unlock()
	if again {
		return
	}
	close(p.stop)
	p.tidying.Wait()
	p.endIdle(1 << 62)
	p.mu.Lock()
	rest := p.all
	p.all = map[*upstream]struct{}{}
	p.mu.Unlock()
	for up := range rest {
		_ = up.Close()
	}
	p.h1.CloseIdleConnections()
	p.h2.CloseIdleConnections()
}

var _ http.RoundTripper = (*pool)(nil)
