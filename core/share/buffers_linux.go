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
// the calls. Those that nobody has are given back to the system in time.
type buffers struct {
	small, large sync.Pool
	// free has a token for each large one that may be lent.
	free chan struct{}
}

func newBuffers(inFlight int) *buffers {
	n := 2*inFlight + 2
	b := &buffers{free: make(chan struct{}, n)}
	for range n {
		b.free <- struct{}{}
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
	<-b.free
	if p, ok := b.large.Get().(*[largeSize]byte); ok {
		return p[:]
	}
	return make([]byte, largeSize)
}

func (b *buffers) put(buf []byte) {
	switch cap(buf) {
	case smallSize:
		b.small.Put((*[smallSize]byte)(buf[:smallSize]))
	case largeSize:
		b.large.Put((*[largeSize]byte)(buf[:largeSize]))
		b.free <- struct{}{}
	}
}
