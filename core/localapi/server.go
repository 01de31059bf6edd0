// Package localapi is the HTTP server of the local API (package api) over core/service, on a unix socket of the user's own.
package localapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"capsem/core/api"
	"capsem/core/buildinfo"
	"capsem/core/safesocket"
	"capsem/core/service"
)

const (
	// maxHeader bounds the headers of a request, in bytes.
	maxHeader = 32 << 10
	// headerTime is how long a client may take to send them.
	headerTime = 10 * time.Second
	// idleTime is how long a connection may be kept alive without a request.
	idleTime = 5 * time.Minute
	// maxConns bounds the connections at once; more wait to be accepted.
	maxConns = 512
	// drainTime is how long requests may take to finish once the server is to stop; after that they are cancelled.
	drainTime = time.Second
)

// Server answers the local API.
type Server struct {
	svc      *service.Service
	log      *slog.Logger
	shutdown func()
	mux      *http.ServeMux
	routes   []route
	document []byte
	// busy waits for handlers, also of connections that were taken over.
	busy sync.WaitGroup
	// attached counts connections that were taken over and go on: commands with a client, and forwards.
	attached atomic.Int32
}

// New makes a server. shutdown is called when a client asks the service to end.
func New(svc *service.Service, log *slog.Logger, shutdown func()) (*Server, error) {
	s := &Server{svc: svc, log: log, shutdown: shutdown, mux: http.NewServeMux()}
	s.routes = s.table()
	for _, r := range s.routes {
		s.mux.Handle(r.method+" "+r.path, s.handler(r))
	}
	s.mux.Handle("/", s.handler(route{run: s.unknown}))
	doc, err := document(s.routes)
	if err != nil {
		return nil, err
	}
	s.document = doc
	return s, nil
}

// Serve answers until ctx ends or the listener fails. Then requests have a moment to finish; all of them have ended when it returns.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// Requests outlive ctx for that moment.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(newBounded(l, maxConns)) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		drain, stop := context.WithTimeout(base, drainTime)
		if server.Shutdown(drain) != nil {
			s.log.Info("cancelling requests that go on")
		}
		stop()
		err = <-failed
	}
	cancel()
	err = errors.Join(err, server.Close())
	s.busy.Wait()
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve local API: %w", err)
	}
	return nil
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// leaving gives a context that ends also when the client of a request hangs up while what it sends is not taken: net/http notices
// that only once it has all of the request.
func leaving(r *http.Request) (context.Context, func()) {
	ctx, cancel := context.WithCancel(r.Context())
	conn, ok := ctx.Value(connKey{}).(net.Conn)
	if !ok {
		return ctx, cancel
	}
	stop := safesocket.OnHangUp(conn, func() bool { cancel(); return true })
	return ctx, func() { stop(); cancel() }
}

// ServeHTTP checks where a request comes from and hands it to its route.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.busy.Done()
	h := w.Header()
	h.Set(api.VersionHeader, buildinfo.Version)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if err := checkOrigin(r); err != nil {
		s.refuse(w, r, err)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// bounded is a listener with at most so many connections open at once.
type bounded struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

func newBounded(l net.Listener, most int) *bounded {
	return &bounded{Listener: l, slots: make(chan struct{}, most), done: make(chan struct{})}
}

// Accept waits for a free place, then for a connection.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.done:
		return nil, net.ErrClosed
	}
	conn, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err //nolint:wrapcheck // net/http looks at it
	}
	return &boundedConn{Conn: conn, free: sync.OnceFunc(func() { <-b.slots })}, nil
}

// Close stops accepting.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Listener.Close() //nolint:wrapcheck // as it is
}

// boundedConn gives its place back when it is closed.
type boundedConn struct {
	net.Conn
	free func()
}

// Close ends the connection.
func (c *boundedConn) Close() error {
	defer c.free()
	return c.Conn.Close() //nolint:wrapcheck // as it is
}

// release gives the place back early: a connection that was taken over from HTTP counts among those of its VM's worker, which
// bounds them. Commands that never end do not keep others from being answered.
func (c *boundedConn) release() { c.free() }

// CloseWrite ends our direction. net/http does so before it closes a connection on which more came than it read, so that its answer
// is not lost.
func (c *boundedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite() //nolint:wrapcheck // as it is
	}
	return errors.ErrUnsupported
}

// SyscallConn reaches the socket, to wait for its hang-up.
func (c *boundedConn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn() //nolint:wrapcheck // as it is
	}
	return nil, errors.ErrUnsupported
}
