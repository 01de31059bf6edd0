package mitm

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"

	"capsem/core/approval"
)

// inbox is a net.Listener whose connections are handed to it.
type inbox struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newInbox() *inbox { return &inbox{conns: make(chan net.Conn), closed: make(chan struct{})} }

// Accept waits for the next connection.
func (in *inbox) Accept() (net.Conn, error) {
	select {
	case c := <-in.conns:
		return c, nil
	case <-in.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (in *inbox) Close() error {
	in.once.Do(func() { close(in.closed) })
	return nil
}

// Addr is a name for logs.
func (in *inbox) Addr() net.Addr { return addr{} }

type addr struct{}

// Network names the kind of address.
func (addr) Network() string { return "link" }

// String is the address.
func (addr) String() string { return "guest" }

// served is a connection as an HTTP server has it.
type served struct {
	net.Conn
	// from is where it reads: the connection itself, or what checks it first.
	from io.Reader
	conn *conn
	done chan struct{}
	once sync.Once
}

// Read reads through what checks the bytes.
func (sc *served) Read(p []byte) (int, error) { return sc.from.Read(p) } //nolint:wrapcheck // a net.Conn's

// Close ends the connection.
func (sc *served) Close() error {
	if sc.conn.aborted.Load() {
		reset(sc.conn.in.Conn)
	}
	err := sc.Conn.Close()
	sc.once.Do(func() { close(sc.done) })
	return err //nolint:wrapcheck // a net.Conn's
}

// serveOn has an HTTP server serve the connection, and waits until that is done with it.
func (c *conn) serveOn(ctx context.Context, in *inbox, nc net.Conn, from io.Reader) {
	sc := &served{Conn: nc, from: from, conn: c, done: make(chan struct{})}
	select {
	case in.conns <- sc:
	case <-in.closed:
		_ = sc.Close()
	case <-ctx.Done():
		_ = sc.Close()
	}
	<-sc.done
}

type connKey struct{}

// connContext gives requests their connection, and questions to the owner who asks.
func connContext(ctx context.Context, nc net.Conn) context.Context {
	sc, ok := nc.(*served)
	if !ok {
		return ctx // the handler refuses it
	}
	return approval.WithProcess(context.WithValue(ctx, connKey{}, sc.conn), &sc.conn.open.Process)
}

func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}
