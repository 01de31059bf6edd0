package link

import (
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
)

const (
	// smallWrite is what goes out as it is; longer writes are bulk.
	smallWrite = 4 << 10
	// bulkShare is about how many bytes of all bulk writers together wait in front of a small write.
	bulkShare = 32 << 10
	// sendBuffer bounds what the host's kernel queues towards the guest, for the same reason.
	sendBuffer = 64 << 10
	// maxMuxLines bounds what one session logs of yamux: a hostile peer can make it complain at every frame.
	maxMuxLines = 20
)

// bulkMeter makes the pieces of bulk writes smaller the more of them there are.
type bulkMeter struct{ writers atomic.Int32 }

// enter announces a write of size bytes; chunk says how long the next piece may be.
func (b *bulkMeter) enter(size int) (chunk func() int, leave func()) {
	if size <= smallWrite {
		return func() int { return smallWrite }, func() {}
	}
	b.writers.Add(1)
	return func() int {
		return min(maxFrameBody, max(smallWrite, bulkShare/int(max(b.writers.Load(), 1))))
	}, func() { b.writers.Add(-1) }
}

// boundSendBuffer keeps the kernel from queueing much where the carrier lets us.
func boundSendBuffer(c net.Conn) {
	if b, ok := c.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = b.SetWriteBuffer(sendBuffer) //nolint:errcheck // only a matter of latency
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
