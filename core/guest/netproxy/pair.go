//go:build linux

package netproxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/link"
)

const (
	// firstBuffer is what a direction begins with; most connections never fill it.
	firstBuffer = 8 << 10
	// fullBuffer is what it goes on with. Each read and each record of the link has its price, so bulk moves in large pieces.
	fullBuffer = 64 << 10
)

// buffers are of fullBuffer bytes.
var buffers = sync.Pool{New: func() any { return new([fullBuffer]byte) }}

// pair is a connection and its stream.
type pair struct {
	conn   *net.TCPConn
	stream link.Stream
	once   sync.Once

	mu sync.Mutex
	// ended says that the host has sent everything, watching that only the end of the connection is waited for.
	ended, watching bool
}

// carry copies both ways until both sides have ended, passing on each end by itself. When one side breaks the other is reset.
func (p *pair) carry() {
	var wg sync.WaitGroup
	wg.Go(p.up)
	p.down()
	wg.Wait()
	p.once.Do(func() {
		_ = p.conn.Close()   // both directions have ended
		_ = p.stream.Close() // both directions have ended
	})
}

// up copies to the host.
func (p *pair) up() {
	err := transfer(p.stream, p.conn)
	if cw, ok := p.stream.(link.CloseWriter); ok && err == nil {
		err = cw.CloseWrite()
	}
	if err != nil {
		p.abort()
		return
	}
	p.watch()
}

// down copies from the host.
func (p *pair) down() {
	err := transfer(p.conn, p.stream)
	if err == nil {
		p.stopWatching() // before the connection looks as if it were given up
		err = p.conn.CloseWrite()
	}
	if err != nil {
		p.abort()
	}
}

// abort resets both sides; what copies then ends.
func (p *pair) abort() {
	p.once.Do(func() {
		if r, ok := p.stream.(link.Refuser); ok {
			r.Refuse()
		} else {
			_ = p.stream.Close() // it is gone
		}
		reset(p.conn)
	})
}

// transfer copies until src ends.
func transfer(dst io.Writer, src io.Reader) error {
	buf := make([]byte, firstBuffer)
	var full *[fullBuffer]byte
	defer func() {
		if full != nil {
			buffers.Put(full)
		}
	}()
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err //nolint:wrapcheck // only whether there is one counts
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err //nolint:wrapcheck // only whether there is one counts
		}
		if n == firstBuffer && full == nil {
			full = buffers.Get().(*[fullBuffer]byte) //nolint:errcheck // what its New makes
			buf = full[:]
		}
	}
}

// watch waits, after the client has sent everything, for it to give the connection up before it has the answer: a stream that
// is silent for long, such as of events, would otherwise outlive its client.
func (p *pair) watch() {
	raw, err := p.conn.SyscallConn()
	if err != nil || !p.startWatching() {
		return
	}
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // a file descriptor
		_, err := unix.Poll(fds, 0)
		return err == nil && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
	})
	if err == nil && p.startWatching() {
		p.abort()
	}
}

// startWatching is false when the host has ended, too: then there is nothing to watch for.
func (p *pair) startWatching() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watching = !p.ended
	return p.watching
}

func (p *pair) stopWatching() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if p.watching {
		_ = p.conn.SetReadDeadline(time.Unix(1, 0)) // ends the wait
	}
}
