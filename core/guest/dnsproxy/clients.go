//go:build linux

package dnsproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"capsem/core/guest/nft"
	"capsem/core/proto"
)

const (
	// udpReaders is how many read each socket.
	udpReaders = 4
	// maxConns bounds the TCP connections at once, maxPipelined the lookups without an answer of one.
	maxConns, maxPipelined = 128, 32
	// idleTime is how long a TCP client may be silent, or take nothing.
	idleTime = 30 * time.Second
	// acceptPause is how long to rest when the kernel gives no connection, for want of memory or files.
	acceptPause = 100 * time.Millisecond
)

// datagrams serves the clients of one UDP socket until it is closed.
func (s Server) datagrams(ctx context.Context, conn *net.UDPConn, x *exchange) {
	buf := make([]byte, proto.MaxDNSMessage)
	for {
		n, client, err := conn.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.Log.Debug("dns-proxy: read datagram", "err", err)
			continue // an answer to somebody who has left
		}
		if n < headerSize {
			continue
		}
		message := append([]byte(nil), buf[:n]...)
		x.ask(proto.DNSQuery{Process: s.Processes.UDP(client), Message: message}, func(answer []byte) {
			if len(answer) > maxDatagram {
				answer = failure(message)
			}
			if len(answer) == 0 {
				return
			}
			if _, err := conn.WriteToUDPAddrPort(answer, client); err != nil {
				s.Log.Debug("dns-proxy: write datagram", "err", err)
			}
		})
	}
}

// accept takes TCP connections until the listener is closed.
func (s Server) accept(ctx context.Context, l *net.TCPListener, x *exchange, slots chan struct{}, wg *sync.WaitGroup) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.Log.Warn("dns-proxy: cannot take a connection", "err", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() { s.connection(ctx, conn, x); <-slots })
		default:
			_ = conn.Close() // a flood
		}
	}
}

// connection serves one TCP client: any number of messages, each after its length.
func (s Server) connection(ctx context.Context, conn *net.TCPConn, x *exchange) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends reading and writing
	defer stop()
	process := s.client(conn)
	answers := make(chan []byte, maxPipelined)
	pending := make(chan struct{}, maxPipelined)
	var writing sync.WaitGroup
	writing.Go(func() {
		for a := range answers {
			writeAnswer(conn, a)
			<-pending
		}
	})
	for {
		pending <- struct{}{} // every lookup has its answer in time, so there is always a place in the end
		message, err := readMessage(conn)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.Log.Debug("dns-proxy: connection", "err", err)
			}
			<-pending
			break
		}
		x.ask(proto.DNSQuery{TCP: true, Process: process, Message: message}, func(a []byte) { answers <- a })
	}
	for range maxPipelined {
		pending <- struct{}{} // all have been answered
	}
	close(answers)
	writing.Wait()
}

// client finds out who a connection is from.
func (s Server) client(conn *net.TCPConn) proto.ProcessClaim {
	from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return proto.ProcessClaim{}
	}
	to, err := nft.OriginalDestination(conn)
	if err != nil {
		// Asking this proxy by its own port is nothing to refuse.
		if to, err = netip.ParseAddrPort(conn.LocalAddr().String()); err != nil {
			return proto.ProcessClaim{}
		}
	}
	return s.Processes.TCP(from, to)
}

// readMessage reads the next message of a client. io.EOF means that it has no more.
func readMessage(conn *net.TCPConn) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(idleTime)); err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	n := binary.BigEndian.Uint16(head[:])
	if n < headerSize {
		return nil, fmt.Errorf("read message: %d bytes are none", n)
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(conn, message); err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	return message, nil
}

// writeAnswer sends one answer. A client that takes nothing is hung up on, so that its other answers fail, too.
func writeAnswer(conn *net.TCPConn, a []byte) {
	if len(a) == 0 || len(a) > proto.MaxDNSMessage {
		return
	}
	err := conn.SetWriteDeadline(time.Now().Add(idleTime))
	if err == nil {
		out := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(a)), uint16(len(a))) //nolint:gosec // bounded above
		_, err = conn.Write(append(out, a...))
	}
	if err != nil {
		_ = conn.Close() // it is gone
	}
}
