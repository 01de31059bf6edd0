package aggregator

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ends are the ends of a program's pipes: what it writes, and what it reads.
type ends struct{ from, to *os.File }

func (e ends) close() {
	_ = e.from.Close() // pipes
	_ = e.to.Close()
}

// pipes are those that have come and that nobody has taken yet.
type pipes struct {
	mu      sync.Mutex
	come    map[uint64]ends
	changed chan struct{}
	closed  bool
}

func newPipes() *pipes { return &pipes{come: map[uint64]ends{}, changed: make(chan struct{})} }

// receive takes descriptors until the socket ends.
func (p *pipes) receive(conn *net.UnixConn) {
	data, control := make([]byte, 8), make([]byte, unix.CmsgSpace(2*4))
	for {
		n, nc, _, _, err := conn.ReadMsgUnix(data, control)
		if err != nil || n == 0 && nc == 0 {
			break
		}
		files := descriptors(control[:nc])
		if n != 8 || len(files) != 2 {
			for _, f := range files {
				_ = f.Close() // not ours
			}
			continue
		}
		p.put(binary.BigEndian.Uint64(data), ends{from: files[0], to: files[1]})
	}
	p.close()
}

// descriptors takes the descriptors out of a control message.
func descriptors(control []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			_ = unix.SetNonblock(fd, true) // so that a read of it can be ended
			files = append(files, os.NewFile(uintptr(fd), "pipe"))
		}
	}
	return files
}

func (p *pipes) put(number uint64, e ends) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, twice := p.come[number]; twice || p.closed || len(p.come) >= maxServers {
		e.close()
		return
	}
	p.come[number] = e
	close(p.changed)
	p.changed = make(chan struct{})
}

// take waits for the pipes of a number.
func (p *pipes) take(ctx context.Context, number uint64) (ends, error) {
	for {
		p.mu.Lock()
		e, ok := p.come[number]
		delete(p.come, number)
		changed, closed := p.changed, p.closed
		p.mu.Unlock()
		switch {
		case ok:
			return e, nil
		case closed:
			return ends{}, net.ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ends{}, context.Cause(ctx) //nolint:wrapcheck // the caller's own
		}
	}
}

func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	for _, e := range p.come {
		e.close()
	}
	close(p.changed)
}

// SendPipes passes the ends of a program's pipes to an aggregator, and keeps them open for the caller to close.
func SendPipes(conn *net.UnixConn, number uint64, from, to *os.File) error {
	rights := unix.UnixRights(int(from.Fd()), int(to.Fd()))
	_, _, err := conn.WriteMsgUnix(binary.BigEndian.AppendUint64(nil, number), rights, nil)
	return err //nolint:wrapcheck // the caller says what it did
}
