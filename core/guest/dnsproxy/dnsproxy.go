//go:build linux

// Package dnsproxy is where the guest's name lookups end: core/guest/nft redirects them here. All of them share one stream to
// the host, which answers in any order; whatever happens to the link, every client has an answer within a bounded time.
package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/nft"
	"capsem/core/link"
	"capsem/core/proto"
)

const (
	// maxWaiting bounds the lookups without an answer; more fail at once.
	maxWaiting = 1024
	// maxBytes bounds the memory that their messages take. A question is seldom longer than a hundred bytes.
	maxBytes = 8 << 20
	// answerTime is how long the host may take; then the lookup fails.
	answerTime = 10 * time.Second
)

// Links gives the session of the link, waiting for one while there is none.
type Links interface {
	Session(ctx context.Context) (link.Session, error)
}

// Processes says who asks; procinfo.Finder is one.
type Processes interface {
	TCP(local, remote netip.AddrPort) proto.ProcessClaim
	UDP(local netip.AddrPort) proto.ProcessClaim
}

// Server carries lookups to the host.
type Server struct {
	// Links is where the stream is opened.
	Links Links
	// Processes says who asks.
	Processes Processes
	// Log receives what goes wrong.
	Log *slog.Logger
	// Max bounds the lookups without an answer, Timeout is how long they wait. 0 is what is usual.
	Max     int
	Timeout time.Duration
}

// Sockets are the proxy's, of both protocols and on both loopbacks.
type Sockets struct {
	udp []*net.UDPConn
	tcp []*net.TCPListener
}

// Listen takes the proxy's ports. A kernel without IPv6 has half of them.
func Listen(ctx context.Context) (*Sockets, error) {
	s := &Sockets{}
	for _, host := range []string{"127.0.0.1", "::1"} {
		err := s.listen(ctx, net.JoinHostPort(host, strconv.Itoa(nft.DNSPort)))
		if host == "::1" && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			continue
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("listen for name lookups: %w", err)
		}
	}
	return s, nil
}

func (s *Sockets) listen(ctx context.Context, address string) error {
	lc := net.ListenConfig{KeepAlive: -1} // nobody on the loopback goes without a word
	p, err := lc.ListenPacket(ctx, "udp", address)
	if err != nil {
		return err //nolint:wrapcheck // the caller does
	}
	s.udp = append(s.udp, p.(*net.UDPConn)) //nolint:errcheck // what "udp" gives
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return err //nolint:wrapcheck // the caller does
	}
	s.tcp = append(s.tcp, l.(*net.TCPListener)) //nolint:errcheck // what "tcp" gives
	return nil
}

// close ends every wait on the sockets.
func (s *Sockets) close() {
	for _, c := range s.udp {
		_ = c.Close() // it is not used any more
	}
	for _, l := range s.tcp {
		_ = l.Close() // it is not used any more
	}
}

// Run listens and serves until ctx ends. It fails only when it cannot listen.
func (s Server) Run(ctx context.Context) error {
	sockets, err := Listen(ctx)
	if err != nil {
		return err
	}
	s.Serve(ctx, sockets)
	return nil
}

// Serve serves the sockets until ctx ends, then closes them and waits for what is under way.
func (s Server) Serve(ctx context.Context, sockets *Sockets) {
	x := newExchange(s.Max, s.Timeout)
	stop := context.AfterFunc(ctx, sockets.close)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { x.expire(ctx) })
	wg.Go(func() {
		defer x.shut()
		carrier{links: s.Links, log: s.Log, exchange: x}.run(ctx)
	})
	for _, c := range sockets.udp {
		// Several, because looking for a process may take its time.
		for range udpReaders {
			wg.Go(func() { s.datagrams(ctx, c, x) })
		}
	}
	slots := make(chan struct{}, maxConns)
	for _, l := range sockets.tcp {
		wg.Go(func() { s.accept(ctx, l, x, slots, &wg) })
	}
}
