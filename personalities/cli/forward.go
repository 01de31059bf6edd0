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

	"github.com/urfave/cli/v2"

	"capsem/core/client"
	"capsem/core/fault"
)

func (s *session) forwardCommand() *cli.Command {
	return &cli.Command{
		Name: "forward", Category: groupSessions, Usage: "reach a port of a VM", UsageText: "forward VM [HOST:]PORT...",
		Description: "Listens on 127.0.0.1 and passes connections on to a loopback port of the VM, until Ctrl-C. HOST is the port to listen\n" +
			"on (0 picks one); without it, it is the same as in the VM.",
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
	if _, err := svc.Info(ctx, args[0]); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return s.serveForwards(ctx, svc, args[0], pairs)
}

// serveForwards listens for all pairs until ctx ends.
func (s *session) serveForwards(ctx context.Context, svc *client.Client, id string, pairs []portPair) (err error) {
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
		wg.Go(func() { s.acceptForwards(ctx, svc, id, l, pair.guest) })
		if err := s.print(fmt.Sprintf("%s -> %s port %d\n", l.Addr(), id, pair.guest)); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// acceptForwards serves the connections of one listener and waits for them.
func (s *session) acceptForwards(ctx context.Context, svc *client.Client, id string, l net.Listener, port uint16) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			guest, err := svc.Forward(ctx, id, port)
			if err != nil {
				_ = conn.Close()
				if ctx.Err() == nil {
					fmt.Fprintln(s.env.Stderr, "capsem:", fault.Line(err))
				}
				return
			}
			stop := context.AfterFunc(ctx, func() { _, _ = conn.Close(), guest.Close() })
			defer stop()
			splice(conn, guest)
		})
	}
}

// splice copies both ways until both ends have finished, and closes both.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	copyOne := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		half, ok := to.(interface{ CloseWrite() error })
		if err != nil || !ok || half.CloseWrite() != nil {
			_, _ = a.Close(), b.Close()
		}
	}
	wg.Go(func() { copyOne(a, b) })
	wg.Go(func() { copyOne(b, a) })
	wg.Wait()
	_, _ = a.Close(), b.Close()
}
