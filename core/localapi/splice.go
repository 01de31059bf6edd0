package localapi

import (
	"context"
	"io"
	"net"
	"sync"

	"capsem/core/safesocket"
)

// copyBuffer is what each direction of a spliced connection holds at most, in bytes: one full stream frame with its head.
const copyBuffer = 64<<10 + 16

var buffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// splice copies between a client and a worker until it is over, and closes both. With halves each side may end its own direction
// and go on reading, as TCP allows; without, the end of the worker's direction ends all, and the client's end means nothing
// (input ends by a frame) until the client hangs up.
func splice(ctx context.Context, client *switched, worker net.Conn, halves bool) {
	closeBoth := func() { _, _ = client.Close(), worker.Close() } // either may be closed already
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	// A worker that takes nothing, since its guest does not, would keep us from seeing that the client is gone.
	sent := safesocket.NewProgress(worker)
	unwatch := safesocket.OnHangUp(client.Conn, func() bool {
		if halves && !sent.Stuck() {
			return false // it may have left right after its last byte, and that is still on its way
		}
		closeBoth()
		return true
	})
	defer unwatch()
	var up sync.WaitGroup
	ended := make(chan struct{}) // the client's direction has
	up.Go(func() {
		err := pump(sent, client)
		if err == nil && halves {
			closeWrite(worker)
		}
		close(ended)
		if err == nil {
			safesocket.HungUp(client.Conn)
		}
		closeBoth()
	})
	if pump(client, worker) == nil && halves {
		closeWrite(client.Conn)
		<-ended
	}
	closeBoth()
	up.Wait()
}

// pump copies until the end of what is read. Only Read and Write are used: the buffers stay ours, and bounded.
func pump(w io.Writer, r io.Reader) error {
	buf, ok := buffers.Get().(*[]byte)
	if !ok {
		return io.ErrShortBuffer
	}
	defer buffers.Put(buf)
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, *buf)
	return err //nolint:wrapcheck // only whether there is one matters
}

func closeWrite(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // the other side may have gone already
	}
}
