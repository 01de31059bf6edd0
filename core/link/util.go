package link

import (
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
)

const (
	// sendBuffer bounds what the host's kernel queues towards the guest.
	sendBuffer = 64 << 10
	// maxMuxLines bounds what one session logs of yamux: a hostile peer can make it complain at every frame.
	maxMuxLines = 20
)

// boundSendBuffer keeps the kernel from queueing much where the carrier lets us.
func boundSendBuffer(c net.Conn) {
	if b, ok := c.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = b.SetWriteBuffer(sendBuffer)
	}
}

// bytesWriter collects bytes.
type bytesWriter []byte

// Write appends p.
func (b *bytesWriter) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// muxLog passes the first lines of yamux on at debug level.
type muxLog struct {
	log  *slog.Logger
	used atomic.Int32
	left int32
}

// Print logs one line.
func (m *muxLog) Print(v ...any) { m.line(fmt.Sprint(v...)) }

// Println logs one line.
func (m *muxLog) Println(v ...any) { m.line(fmt.Sprint(v...)) }

// Printf logs one line.
func (m *muxLog) Printf(format string, v ...any) {
	if m.used.Load() <= m.left {
		m.line(fmt.Sprintf(format, v...))
	}
}

func (m *muxLog) line(text string) {
	if m.used.Add(1) <= m.left {
		m.log.Debug("link: " + text)
	}
}
