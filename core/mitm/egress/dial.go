package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"capsem/core/policy"
)

// Dial connects to a port of a host, a name or an address literal. Errors are faults for a user to read; what permit returns comes back
// wrapped.
func (d *Dialer) Dial(ctx context.Context, host string, port uint16, permit Permit) (net.Conn, error) {
	t, err := aim(host, port)
	if err != nil {
		return nil, err
	}
	addrs, err := d.resolve(ctx, t)
	if d.proxy != nil {
		// A name that only the proxy knows goes to it unseen: the owner has put the proxy between. But one that resolves here is judged
		// here, every address of it, since the proxy may take any.
		if err == nil {
			err = permitAll(ctx, addrs, permit)
		} else if ctx.Err() == nil {
			d.log.Debug("egress: a name is left to the proxy", "host", t.host, "err", err)
			err = nil
		}
		if err != nil {
			return nil, err
		}
		return d.throughProxy(ctx, t)
	}
	if err != nil {
		return nil, explain(t, err)
	}
	conn, err := (&race{dialer: d, target: t, permit: permit}).run(ctx, addrs)
	if err != nil {
		d.log.Debug("egress: cannot connect", "host", t.host, "port", t.port, "err", err)
		return nil, explain(t, err)
	}
	return conn, nil
}

// aim checks what is asked for.
func aim(host string, port uint16) (target, error) {
	name, err := policy.NormalHost(host)
	if err != nil || port == 0 {
		return target{}, badTarget(host, port)
	}
	_, err = netip.ParseAddr(name)
	return target{host: name, literal: err == nil, port: port}, nil
}

// resolve gives the addresses to try, of both families in turn, the first address's family first.
func (d *Dialer) resolve(ctx context.Context, t target) ([]netip.Addr, error) {
	if t.literal {
		addr, err := netip.ParseAddr(t.host)
		if err != nil {
			return nil, fmt.Errorf("read address: %w", err)
		}
		return []netip.Addr{addr}, nil
	}
	limit := lookupTime
	if d.proxy != nil {
		if t.host == "localhost" || strings.HasSuffix(t.host, ".localhost") { // a proxy would take it for its own (RFC 6761)
			return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
		}
		limit = proxyLookupTime
	}
	lookup, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	found, err := d.resolver.Lookup(lookup, t.host)
	if err != nil {
		return nil, &lookupError{err}
	}
	addrs := inTurn(found)
	if len(addrs) == 0 {
		return nil, &lookupError{errNoAddress}
	}
	return addrs, nil
}

// inTurn drops what cannot be dialled and what is there twice, and lets the families take turns.
func inTurn(found []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, a := range found {
		a = a.Unmap()
		if !a.IsValid() || a.Zone() != "" || seen[a] {
			continue
		}
		seen[a] = true
		if len(first) == 0 || first[0].Is4() == a.Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var out []netip.Addr
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out[:min(len(out), maxAddrs)]
}

func permitAll(ctx context.Context, addrs []netip.Addr, permit Permit) error {
	for _, a := range addrs {
		if err := permit(ctx, a); err != nil {
			return &refusedError{a, err}
		}
	}
	return nil
}

// race tries the addresses of one name, each a moment after the one before or when that has failed, until one answers.
type race struct {
	dialer *Dialer
	target target
	permit Permit

	results chan result
	running int
	// failed is the first failure of an address that was tried, refused that of one that may not be.
	failed, refused error
}

type result struct {
	conn net.Conn
	err  error
}

func (r *race) run(ctx context.Context, addrs []netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	r.results = make(chan result, len(addrs))
	defer func() { // losers end now, and nobody of them is left running
		cancel()
		for ; r.running > 0; r.running-- {
			if late := <-r.results; late.conn != nil {
				_ = late.conn.Close()
			}
		}
	}()
	for _, addr := range addrs {
		if err := r.permit(ctx, addr); err != nil {
			if r.refused == nil {
				r.refused = &refusedError{addr, err}
			}
			continue
		}
		r.running++
		go func() {
			conn, err := dialOne(ctx, netip.AddrPortFrom(addr, r.target.port))
			r.results <- result{conn, err}
		}()
		if conn := r.wait(ctx, stagger); conn != nil {
			return conn, nil
		}
	}
	for r.running > 0 && ctx.Err() == nil {
		if conn := r.wait(ctx, 2*connectTime); conn != nil {
			return conn, nil
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case r.failed != nil:
		return nil, r.failed
	}
	return nil, r.refused
}

// wait waits for one result for a while. It returns nil when there is none yet, or a failure.
func (r *race) wait(ctx context.Context, while time.Duration) net.Conn {
	timer := time.NewTimer(while)
	defer timer.Stop()
	select {
	case got := <-r.results:
		r.running--
		if got.err == nil {
			return got.conn
		}
		if r.failed == nil {
			r.failed = got.err
		}
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

// errOther is a socket that is about to connect to something else than was permitted: our own mistake.
var errOther = errors.New("the address is not the one that was permitted")

// dialOne connects to a permitted address. Control sees the address that the kernel will be given.
func dialOne(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{
		Timeout: connectTime, FallbackDelay: -1,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			if now, err := netip.ParseAddrPort(address); err != nil || now != to {
				return errOther
			}
			return nil
		},
	}
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}
