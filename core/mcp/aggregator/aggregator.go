package aggregator

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"

	"capsem/core/mcp/peer"
)

// Config is what an aggregator has.
type Config struct {
	// Conn is its worker, Descriptors where the pipes of programs come from; nil takes none.
	Conn        io.ReadWriteCloser
	Descriptors *net.UnixConn
	// Roots are the certificates to trust.
	Roots *x509.CertPool
	// Log takes what goes wrong.
	Log *slog.Logger
}

// aggregator is the state of the process.
type aggregator struct {
	cfg    Config
	peer   *peer.Peer
	ready  chan struct{} // closed when peer is set
	pipes  *pipes
	parent context.Context //nolint:containedctx // the process's own
	mu     sync.Mutex
	byName map[string]*session
	work   sync.WaitGroup
}

// Run serves the worker until it hangs up, which is no error.
func Run(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := &aggregator{cfg: cfg, ready: make(chan struct{}), byName: map[string]*session{}, parent: ctx, pipes: newPipes()}
	if cfg.Descriptors != nil {
		stop := context.AfterFunc(ctx, func() { _ = cfg.Descriptors.Close() })
		defer stop()
		a.work.Go(func() { a.pipes.receive(cfg.Descriptors) })
	}
	a.peer = peer.New(ctx, cfg.Conn, a)
	close(a.ready)
	<-a.peer.Over()
	cancel()
	a.peer.Close()
	a.stopAll()
	a.work.Wait()
	a.pipes.close()
	if err := a.peer.Err(); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("connection to the worker: %w", err)
	}
	return nil
}

// Note takes none.
func (a *aggregator) Note(string, []byte) {}

// Call serves the worker.
func (a *aggregator) Call(ctx context.Context, method string, params []byte) ([]byte, error) {
	<-a.ready
	switch method {
	case Configure:
		var c Configuration
		if err := peer.Unmarshal(params, &c); err != nil {
			return nil, err //nolint:wrapcheck // says what is wrong
		}
		return nil, a.configure(&c)
	case Request:
		var c Call
		if err := peer.Unmarshal(params, &c); err != nil {
			return nil, err //nolint:wrapcheck // as above
		}
		s, err := a.find(c.Server)
		if err != nil {
			return nil, err
		}
		return s.request(ctx, &c)
	case Refresh:
		var t Target
		if err := peer.Unmarshal(params, &t); err != nil {
			return nil, err //nolint:wrapcheck // as above
		}
		s, err := a.find(t.Server)
		if err != nil {
			return nil, err
		}
		s.wake()
		return nil, nil
	}
	return nil, peer.Errorf(-32601, "there is no %.60q", method)
}

func (a *aggregator) find(name string) (*session, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.byName[name]
	if s == nil {
		return nil, peer.Errorf(-32602, "there is no MCP server %.60q", name)
	}
	return s, nil
}

// configure makes the servers those of c: sessions with others end, those with the same go on.
func (a *aggregator) configure(c *Configuration) error {
	if len(c.Servers) > maxServers {
		return peer.Errorf(peer.CodeTooLarge, "more than %d MCP servers", maxServers)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	want := map[string]*Server{}
	for i := range c.Servers {
		want[c.Servers[i].Name] = &c.Servers[i]
	}
	for name, s := range a.byName {
		if w := want[name]; w == nil || !w.same(&s.server) {
			s.stop()
			delete(a.byName, name)
		}
	}
	for name, w := range want {
		if s := a.byName[name]; s != nil {
			s.again()
			continue
		}
		s := newSession(a, w)
		a.byName[name] = s
		a.work.Go(s.run)
	}
	return nil
}

func (a *aggregator) stopAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.byName {
		s.stop()
	}
}

// tell sends a note to the worker.
func (a *aggregator) tell(method string, v any) {
	body, err := peer.Marshal(v)
	if err == nil {
		err = a.peer.Note(method, body)
	}
	if err != nil {
		a.cfg.Log.Warn("the worker cannot be told", "what", method, "error", err)
	}
}

// ask calls the worker.
func (a *aggregator) ask(ctx context.Context, method string, params, result any) error {
	body, err := peer.Marshal(params)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	out, err := a.peer.Call(ctx, method, body)
	if err != nil || result == nil {
		return err //nolint:wrapcheck // the worker's words
	}
	return peer.Unmarshal(out, result) //nolint:wrapcheck // says what it did
}
