package mitm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"capsem/core/link"
	"capsem/core/mitm/flow"
	"capsem/core/mitm/judge"
	"capsem/core/policy"
)

// errCut is a connection that the policy in force no longer allows.
var errCut = errors.New("the policy no longer allows it")

// raw passes a connection on that is neither TLS nor HTTP, if a rule opens its host and port for that.
func (c *conn) raw(ctx context.Context) {
	c.scheme = "tcp"
	asked := c.asked("tcp")
	v := c.s.cfg.Policy.Judge(ctx, asked)
	if v.Effect != policy.Allow {
		c.note("tcp", v, nil, 0, 0)
		if c.tellSSH(v.RuleID) {
			return
		}
		reset(c.in.Conn)
		return
	}
	c.pass(ctx, "tcp", asked, v)
}

// tunnel passes TLS on.
func (c *conn) tunnel(ctx context.Context) { c.pass(ctx, "tunnel", c.asked("https"), c.passed) }

// pass connects to the host of an allowed connection and copies both ways.
func (c *conn) pass(ctx context.Context, kind string, asked *policy.Request, v policy.Verdict) {
	f := &flow.Flow{VM: c.s.cfg.VM, Process: &c.open.Process, Host: c.host, Port: c.port, Scheme: c.scheme, Type: kind, Began: c.began}
	f.SetVerdict(v)
	var addrs []netip.Addr
	up, err := c.s.cfg.Dialer.Dial(ctx, c.host, c.port, func(ctx context.Context, addr netip.Addr) error {
		to := *asked
		to.Addr = addr
		now := c.s.cfg.Policy.Continue(ctx, &to, v)
		if now.Effect != policy.Allow {
			f.SetVerdict(now)
			return judge.Refuse(c.s.cfg.Policy, now, &to)
		}
		f.SetVerdict(v)
		f.Asked(now.AskID)
		addrs = append(addrs, addr.Unmap())
		return nil
	})
	if err != nil {
		c.noteFlow(f, errors.New(upstreamLine(err)), 0, 0)
		reset(c.in.Conn)
		return
	}
	defer up.Close()
	f.SetRemote(up.RemoteAddr().String())
	addrs = reached(up.RemoteAddr(), addrs)
	p := &splice{guest: c.in, up: up}
	err = p.run(ctx, c.s.limits.Recheck, func() error {
		if now := judge.PossibleAt(c.s.cfg.Policy, asked, addrs...); now.Effect == policy.Deny {
			f.SetVerdict(now)
			return fmt.Errorf("%w: rule %s", errCut, now.RuleID)
		}
		return nil
	})
	c.noteFlow(f, err, p.sent.Load(), p.received.Load())
}

// splice copies between two connections until both directions have ended or one has failed.
type splice struct {
	guest *peeked
	up    net.Conn

	sent, received atomic.Int64
	cut            atomic.Pointer[error]
}

// run copies. still is asked now and then whether to go on.
func (p *splice) run(ctx context.Context, every time.Duration, still func() error) error {
	abort := func() {
		reset(p.up)
		reset(p.guest.Conn)
	}
	stop := context.AfterFunc(ctx, abort)
	defer stop()
	done := make(chan struct{})
	var watch, both sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if err := still(); err != nil {
				p.cut.Store(&err)
				abort()
				return
			}
		}
	})
	errs := make([]error, 2)
	one := func(err *error, to, from net.Conn, count *atomic.Int64) {
		if *err = relay(to, from, count); *err != nil {
			abort()
		}
	}
	both.Go(func() { one(&errs[0], p.up, p.guest, &p.sent) })
	both.Go(func() { one(&errs[1], p.guest, p.up, &p.received) })
	both.Wait()
	close(done)
	watch.Wait()
	if cut := p.cut.Load(); cut != nil {
		return *cut
	}
	if ctx.Err() != nil {
		return context.Cause(ctx) //nolint:wrapcheck // says why
	}
	return errors.Join(errs...)
}

// relay copies one direction, and its end.
func relay(to, from net.Conn, count *atomic.Int64) error {
	buf := buffers.Get()
	defer buffers.Put(buf)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err //nolint:wrapcheck // a net.Conn's
			}
			count.Add(int64(n))
		}
		if errors.Is(err, io.EOF) {
			return closeWrite(to)
		}
		if err != nil {
			return err //nolint:wrapcheck // a net.Conn's
		}
	}
}

// closeWrite passes on an end of file.
func closeWrite(c net.Conn) error {
	if p, ok := c.(*peeked); ok {
		c = p.Conn
	}
	if w, ok := c.(link.CloseWriter); ok {
		err := w.CloseWrite()
		if errors.Is(err, net.ErrClosed) {
			err = nil
		}
		return err //nolint:wrapcheck // a net.Conn's
	}
	return nil
}

// pooled lends buffers for copying.
type pooled struct{ pool sync.Pool }

var buffers = &pooled{pool: sync.Pool{New: func() any { return new([32 << 10]byte) }}}

// Get lends a buffer.
func (p *pooled) Get() []byte {
	b, ok := p.pool.Get().(*[32 << 10]byte)
	if !ok {
		b = new([32 << 10]byte)
	}
	return b[:]
}

// Put takes it back.
func (p *pooled) Put(b []byte) {
	if len(b) == 32<<10 {
		p.pool.Put((*[32 << 10]byte)(b))
	}
}
