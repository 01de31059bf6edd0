// Package host is the worker's side of MCP: it starts the aggregator, the built-in server and the owner's programs, passes pipes between
// them, looks up names, and keeps what the servers offer.
package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
	"capsem/core/mcp/peer"
)

// Secrets gives the values of the owner's secrets.
type Secrets interface {
	// Resolve gives the value of a secret by its name.
	Resolve(ctx context.Context, ref string) (string, error)
	// Renew waits until there is another value of one than that with a mark (mcp.Mark), which its server has refused.
	Renew(ctx context.Context, ref, mark string) error
}

// Listener is told of what happens.
type Listener interface {
	// Offered is a server's new offer. Happened is a notification of a server.
	Offered(o *aggregator.Offering)
	Happened(h *aggregator.Happening)
	// Asked is a question of a server to the VM's client; the answer is JSON.
	Asked(ctx context.Context, q *aggregator.Question) ([]byte, error)
}

// Config is what a Host is made of.
type Config struct {
	// Exe is the binary that is all personalities.
	Exe string
	// Dir is an existing directory in which each program gets one of its own. Keep are directories that no program may use.
	Dir  string
	Keep []string
	// Proxy is an HTTP proxy for servers behind a URL; empty is none.
	Proxy string
	// Secrets resolves references; nil has none.
	Secrets Secrets
	// Builtin serves the built-in tools' requests; nil has no built-in server. SessionDir is given to it as CAPSEM_SESSION_DIR.
	Builtin    peer.Handler
	SessionDir string
	// Listener is told of what happens.
	Listener Listener
	// Log takes what goes wrong, and what servers write to their standard error.
	Log *slog.Logger
	// lookup finds addresses; net.DefaultResolver's but in tests.
	lookup func(ctx context.Context, host string) ([]net.IPAddr, error)
}

// Host runs the servers of one VM. Make it with Start.
type Host struct {
	cfg  Config
	ctx  context.Context //nolint:containedctx // the host's own life
	stop context.CancelFunc
	work sync.WaitGroup
	// key is for hashes of what may have secrets in it.
	key [32]byte

	// pushing is held while the aggregator is told its servers, so that the last word is the newest.
	pushing sync.Mutex

	mu       sync.Mutex
	defs     map[string]mcp.Definition
	servers  []aggregator.Server // as configured last
	current  *link               // nil while there is no aggregator
	changed  chan struct{}
	programs map[uint64]*program
	events   map[string]chan *aggregator.Happening // of each server
}

// link is one life of the aggregator.
type link struct {
	peer        *peer.Peer
	descriptors *net.UnixConn
}

// Pauses between two lives of the aggregator.
const firstPause, longestPause, steadyTime = 100 * time.Millisecond, 10 * time.Second, time.Minute

// Start begins. Servers are given with Configure.
func Start(ctx context.Context, cfg Config) *Host {
	if cfg.lookup == nil {
		cfg.lookup = net.DefaultResolver.LookupIPAddr
	}
	h := &Host{cfg: cfg, changed: make(chan struct{}), programs: map[uint64]*program{}, defs: map[string]mcp.Definition{}, events: map[string]chan *aggregator.Happening{}}
	_, _ = rand.Read(h.key[:]) // never fails
	h.ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	h.work.Go(h.run)
	return h
}

// Close ends all servers and waits for them.
func (h *Host) Close() {
	h.stop()
	h.work.Wait()
}

// run starts the aggregator again and again.
func (h *Host) run() {
	pause := firstPause
	for h.ctx.Err() == nil {
		began := time.Now()
		err := h.live()
		if h.ctx.Err() != nil {
			return
		}
		h.cfg.Log.Warn("the MCP aggregator ended, starting it again", "error", err)
		if time.Since(began) > steadyTime {
			pause = firstPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-h.ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, longestPause)
	}
}

// live is one life of the aggregator.
func (h *Host) live() error {
	cmd, conn, descriptors, err := h.startAggregator()
	if err != nil {
		return err
	}
	p := peer.New(h.ctx, conn, h)
	defer func() {
		p.Close()
		_ = descriptors.Close()
		h.endAll()
		_ = cmd.wait()
	}()
	h.set(&link{peer: p, descriptors: descriptors})
	defer h.set(nil)
	if err := h.push(h.ctx); err != nil {
		return err
	}
	<-p.Over()
	return p.Err() //nolint:wrapcheck // says what it is
}

func (h *Host) set(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.current = l
	close(h.changed)
	h.changed = make(chan struct{})
}

// push tells the aggregator its servers, as they are at this moment; one that is not there is told when it starts.
func (h *Host) push(ctx context.Context) error {
	h.pushing.Lock()
	defer h.pushing.Unlock()
	h.mu.Lock()
	l, servers := h.current, h.servers
	h.mu.Unlock()
	if l == nil {
		return nil
	}
	body, err := peer.Marshal(aggregator.Configuration{Servers: servers})
	if err == nil {
		_, err = l.peer.Call(ctx, aggregator.Configure, body)
	}
	if err != nil {
		return fmt.Errorf("tell the MCP aggregator its servers: %w", err)
	}
	return nil
}

// Configure makes the servers those given. A server that cannot be, for want of a secret, say, is reported as an offer with an error.
func (h *Host) Configure(ctx context.Context, defs []mcp.Definition) error {
	byName, servers := map[string]mcp.Definition{}, []aggregator.Server(nil)
	if h.cfg.Builtin != nil {
		servers = append(servers, aggregator.Server{Name: mcp.Local, Limits: mcp.DefaultLimits()})
	}
	for _, d := range defs {
		s, err := h.server(ctx, &d)
		if err != nil {
			h.cfg.Listener.Offered(&aggregator.Offering{Server: d.Name, Error: err.Error()})
			continue
		}
		byName[d.Name] = d
		servers = append(servers, *s)
	}
	h.mu.Lock()
	h.defs, h.servers = byName, servers
	h.mu.Unlock()
	return h.push(ctx)
}

// aggregator waits for there to be one.
func (h *Host) aggregator(ctx context.Context) (*link, error) {
	for {
		h.mu.Lock()
		l, changed := h.current, h.changed
		h.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-changed:
		case <-h.ctx.Done():
			return nil, peer.Errorf(peer.CodeFailed, "the VM is ending")
		case <-ctx.Done():
			return nil, context.Cause(ctx) //nolint:wrapcheck // the caller's own
		}
	}
}

// waitTime is how long a call waits for the aggregator.
const waitTime = 5 * time.Second

// Request makes an MCP request of a server, once. Errors are peer.Error or the context's.
func (h *Host) Request(ctx context.Context, call *aggregator.Call) ([]byte, error) {
	wait, cancel := context.WithTimeout(ctx, waitTime)
	l, err := h.aggregator(wait)
	cancel()
	if err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return nil, peer.Errorf(peer.CodeFailed, "MCP servers cannot be reached: their aggregator does not run")
		}
		return nil, err
	}
	body, err := peer.Marshal(call)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	return l.peer.Call(ctx, aggregator.Request, body) //nolint:wrapcheck // a peer.Error
}

// Refresh has a server asked again what it offers, and one that is down started at once.
func (h *Host) Refresh(ctx context.Context, server string) error {
	l, err := h.aggregator(ctx)
	if err != nil {
		return err
	}
	body, err := peer.Marshal(aggregator.Target{Server: server})
	if err == nil {
		_, err = l.peer.Call(ctx, aggregator.Refresh, body)
	}
	return err //nolint:wrapcheck // a peer.Error
}
