// Package workerclient speaks to the worker of one VM over its socket (proto.WorkerRequest). The service and a few commands
// of the CLI use it. What comes from the worker is bounded and validated: a guest that broke out of its VM may be behind it.
package workerclient

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"capsem/core/buildinfo"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
	"capsem/core/safesocket"
)

// MaxReply bounds one reply in bytes: a job's kept output is 128 KiB, the list of jobs less.
const MaxReply = 1 << 20

// helloTime bounds the greeting: a worker answers at once or is not one.
const helloTime = 5 * time.Second

// ErrProtocol says that a worker of another version answers.
var ErrProtocol = errors.New("another protocol")

// Conn is one connection to a worker. Calls follow one another; Stream and Watch take the connection over.
type Conn struct {
	conn  net.Conn
	r     *bufio.Reader
	hello proto.WorkerHello
	mu    sync.Mutex
}

// Dial connects and exchanges greetings. A worker that cannot be reached or speaks another protocol is a fault.Unavailable.
func Dial(ctx context.Context, path string) (*Conn, error) {
	raw, err := safesocket.Dial(ctx, path)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "the VM's worker does not answer").WithHint("see capsem list")
	}
	c := &Conn{conn: raw, r: bufio.NewReaderSize(raw, 16<<10)}
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	err = c.within(ctx, func() error {
		mine := proto.WorkerHello{Protocol: proto.Version, Build: buildinfo.Version}
		if err := proto.WriteFrame(raw, mine); err != nil {
			return err //nolint:wrapcheck // below
		}
		return proto.ReadFrame(c.r, proto.MaxHeader, &c.hello)
	})
	if err == nil && c.hello.Protocol != proto.Version {
		err = fmt.Errorf("%w: it speaks %d, this program %d", ErrProtocol, c.hello.Protocol, proto.Version)
	}
	if err != nil {
		return nil, errors.Join(fault.Wrap(err, fault.Unavailable, "the VM's worker does not answer as it should: %s", err).
			WithHint("it may be of another version of capsem: stop the VM and start it again"), raw.Close())
	}
	return c, nil
}

// Hello is what the worker said of itself.
func (c *Conn) Hello() proto.WorkerHello { return c.hello }

// Close ends the connection.
func (c *Conn) Close() error {
	if err := c.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close worker: %w", err)
	}
	return nil
}

// Call asks one thing and returns the answer. A reply with an error is that error, as a fault. A call whose context ends
// breaks the connection, since its answer may still come.
func (c *Conn) Call(ctx context.Context, req proto.WorkerRequest) (proto.WorkerReply, error) {
	var reply proto.WorkerReply
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.within(ctx, func() error {
		if err := proto.WriteFrame(c.conn, req); err != nil {
			return err //nolint:wrapcheck // below
		}
		return proto.ReadFrame(c.r, MaxReply, &reply)
	})
	if err != nil {
		return reply, fault.Wrap(err, fault.Unavailable, "the VM's worker went away").WithHint("see capsem list and capsem logs")
	}
	if reply.Error != nil {
		return reply, Fault(reply.Error)
	}
	return reply, nil
}

// Stream asks for something that takes the connection over, and returns the connection once the worker has agreed.
// On error the Conn is closed.
func (c *Conn) Stream(ctx context.Context, req proto.WorkerRequest) (net.Conn, error) {
	if _, err := c.Call(ctx, req); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &taken{Conn: c.conn, r: c.r}, nil
}

// Watch returns the worker's state now and at each change; the channel is closed when the connection ends, which Close or
// the end of ctx also bring about. A status that is malformed ends it as well.
func (c *Conn) Watch(ctx context.Context) (<-chan proto.WorkerStatus, error) {
	conn, err := c.Stream(ctx, proto.WorkerRequest{Op: proto.OpWatch})
	if err != nil {
		return nil, err
	}
	out := make(chan proto.WorkerStatus)
	go func() {
		defer close(out)
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		defer stop()
		for {
			var st proto.WorkerStatus
			if err := proto.ReadFrame(conn, proto.MaxFrame, &st); err != nil || !lifecycle.Known(st.State) {
				return
			}
			select {
			case out <- st:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// within runs f and breaks the connection when ctx ends first.
func (c *Conn) within(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	err := f()
	if !stop() && ctx.Err() != nil {
		return fmt.Errorf("ask worker: %w", context.Cause(ctx))
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Fault is the error that a worker or a guest reports. Its text is shown to users by way of fault.Line, which makes it plain.
func Fault(e *proto.StreamError) *fault.Error {
	code := fault.Code(e.Code)
	if code == "" {
		code = fault.Internal
	}
	return &fault.Error{Code: code, Message: limited(e.Message), Hint: limited(e.Hint)}
}

func limited(text string) string { return text[:min(len(text), 4<<10)] }

// taken is a connection that was taken over, with what was read ahead.
type taken struct {
	net.Conn
	r *bufio.Reader
}

// Read reads what came after the worker's reply.
func (t *taken) Read(p []byte) (int, error) { return t.r.Read(p) } //nolint:wrapcheck // a net.Conn hands errors through

// CloseWrite sends end-of-file and leaves reading open.
func (t *taken) CloseWrite() error {
	if w, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite() //nolint:wrapcheck // as above
	}
	return errors.New("close for writing: not a unix socket")
}
