package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/lifecycle"
)

func (s *session) forwardCommand() *cli.Command {
	return &cli.Command{
		Name: "forward", Category: groupSessions, Usage: "reach a port of a VM", UsageText: "forward VM [HOST:]PORT...",
		Description: "Listens on 127.0.0.1 and passes connections on to a loopback port of the VM, until Ctrl-C. HOST is the port to listen\n" +
			"on (0 picks one); without it, it is the same as in the VM. Connections that nothing in the VM answers are told of.",
		Action: action(s.forward),
	}
}

// portPair is one forwarded port.
type portPair struct{ host, guest uint16 }

// parsePorts reads 8080, 3000:8080 or 127.0.0.1:3000:8080.
func parsePorts(text string) (portPair, error) {
	bad := fault.New(fault.Invalid, "%.60q is not a port to forward", text).WithHint("write GUESTPORT or HOSTPORT:GUESTPORT, such as 3000:8080")
	parts := strings.Split(text, ":")
	if len(parts) == 3 {
		if parts[0] != "127.0.0.1" && parts[0] != "localhost" {
			return portPair{}, fault.New(fault.Forbidden, "ports are forwarded to this machine only, not to %.60q", parts[0]).
				WithHint("write %s:%s", parts[1], parts[2])
		}
		parts = parts[1:]
	}
	if len(parts) > 2 {
		return portPair{}, bad
	}
	guest, err := strconv.ParseUint(parts[len(parts)-1], 10, 16)
	if err != nil || guest == 0 {
		return portPair{}, bad
	}
	host := guest
	if len(parts) == 2 {
		if host, err = strconv.ParseUint(parts[0], 10, 16); err != nil {
			return portPair{}, bad
		}
	}
	return portPair{uint16(host), uint16(guest)}, nil
}

func (s *session) forward(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 2, -1)
	if err != nil {
		return err
	}
	pairs := make([]portPair, 0, len(args)-1)
	for _, text := range args[1:] {
		pair, err := parsePorts(text)
		if err != nil {
			return err
		}
		pairs = append(pairs, pair)
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	// Tell about an unknown or stopped VM now, not at the first connection.
	info, err := svc.Info(ctx, args[0])
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if info.Status != lifecycle.Running && info.Status != lifecycle.Booting && !info.Idle {
		return fault.New(fault.Conflict, "VM %s is %s: it has no ports", args[0], info.Status).WithHint("capsem resume %s starts it", args[0])
	}
	f := &forwarder{s: s, svc: svc, id: args[0], told: map[uint16]told{}}
	return f.serve(ctx, pairs)
}

// forwarder serves the forwarded ports of one VM.
type forwarder struct {
	s   *session
	svc *client.Client
	id  string

	mu   sync.Mutex
	told map[uint16]told
}

// tellEvery is the least time between two lines about the same port.
const tellEvery = 5 * time.Second

// told is what the user was last told about a port, and when.
type told struct {
	text string
	at   time.Time
}

// tell says what is wrong with a port: once, until it is something else or the port has answered meanwhile. An empty text is an
// answer.
func (f *forwarder) tell(port uint16, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, now := f.told[port], time.Now()
	switch {
	case text == before.text:
	case text == "":
		f.told[port] = told{at: before.at}
	case before.at.IsZero() || now.Sub(before.at) >= tellEvery:
		f.told[port] = told{text, now}
		f.s.note("%s", text)
	}
}

// serve listens for all pairs until ctx ends.
func (f *forwarder) serve(ctx context.Context, pairs []portPair) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, pair := range pairs {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(pair.host))))
		if err != nil {
			return fault.Wrap(err, fault.Conflict, "cannot listen on port %d: %s", pair.host, errors.Unwrap(err)).WithHint("choose another: OTHER:%d", pair.guest)
		}
		wg.Go(func() {
			<-ctx.Done()
			_ = l.Close() // ends Accept
		})
		wg.Go(func() { f.accept(ctx, l, pair.guest) })
		s := f.s
		if err := s.print(fmt.Sprintf("%s -> %s port %d\n", l.Addr(), f.id, pair.guest)); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// accept serves the connections of one listener and waits for them.
func (f *forwarder) accept(ctx context.Context, l net.Listener, port uint16) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { f.connect(ctx, conn, port) })
	}
}

// connect joins one connection with the guest's port.
func (f *forwarder) connect(ctx context.Context, conn net.Conn, port uint16) {
	guest, err := f.svc.Forward(ctx, f.id, port)
	if err != nil {
		_ = conn.Close()
		if ctx.Err() == nil {
			f.tell(port, fault.Line(err))
		}
		return
	}
	stop := context.AfterFunc(ctx, func() { _, _ = conn.Close(), guest.Close() })
	defer stop()
	end := splice(conn, guest)
	switch {
	case ctx.Err() != nil:
	case end == answered:
		f.tell(port, "")
	case end == hungUp:
		// The worker has accepted the connection before the guest is asked, so a refusal looks like this.
		f.tell(port, fmt.Sprintf("VM %s has ended a connection to its port %d without a word: does anything listen on 127.0.0.1:%d in it?", f.id, port, port))
	}
}

// splicing is how a forwarded connection went.
type splicing int

const (
	// undecided is a connection that the user's program ended before anything came from the guest.
	undecided splicing = iota
	// answered is one on which the guest said something; hungUp one that the guest ended without that.
	answered
	hungUp
)

// splice copies both ways until both ends have finished, and closes both.
func splice(local, guest net.Conn) splicing {
	var wg sync.WaitGroup
	var left atomic.Bool // the user's program has ended its direction
	finish := func(to net.Conn, err error) {
		half, ok := to.(interface{ CloseWrite() error })
		if err != nil || !ok || half.CloseWrite() != nil {
			_, _ = local.Close(), guest.Close()
		}
	}
	end := undecided
	wg.Go(func() {
		in := &counted{Reader: guest}
		_, err := io.Copy(local, in)
		switch {
		case in.n > 0:
			end = answered
		case !left.Load() && !errors.Is(err, net.ErrClosed):
			end = hungUp
		}
		finish(local, err)
	})
	wg.Go(func() {
		_, err := io.Copy(guest, local)
		if err == nil {
			left.Store(true)
		}
		finish(guest, err)
	})
	wg.Wait()
	_, _ = local.Close(), guest.Close()
	return end
}
