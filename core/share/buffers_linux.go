package share

import (
	"sync"

	"capsem/core/share/wire"
)

const (
	// smallSize fits almost every message but those that carry data.
	smallSize = 8 << 10
	largeSize = wire.FrameHead + wire.MaxMessage
)

// buffers lends memory for messages. There is a fixed number of large ones, whatever the guest sends: two for each call that may be
// under way, its request and its answer, so that nobody waits for one: a guest that stands still reads no answers, and Save waits for
// the calls.
type buffers struct {
	small sync.Pool
	large chan []byte
}

func newBuffers(inFlight int) *buffers {
	n := 2*inFlight + 2
	b := &buffers{large: make(chan []byte, n)}
	for range n {
		b.large <- nil // made when first needed
	}
	return b
}

// get lends at least n bytes.
func (b *buffers) get(n int) []byte {
	if n <= smallSize {
		if p, ok := b.small.Get().(*[smallSize]byte); ok {
			return p[:]
		}
		return make([]byte, smallSize)
	}
	buf := <-b.large
	if buf == nil {
		buf = make([]byte, largeSize)
	}
	return buf
}

func (b *buffers) put(buf []byte) {
	switch cap(buf) {
	case smallSize:
		b.small.Put((*[smallSize]byte)(buf[:smallSize]))
	case largeSize:
		b.large <- buf[:largeSize]
	}
}
