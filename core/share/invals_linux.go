package share

import (
	"sync"

	"capsem/core/share/wire"
)

// maxInvals bounds the invalidations that wait to be sent. Of those about nodes there are never more than nodes; those of
// names not known to the guest are left out first, as what it has cached of them ends after shortValid.
const maxInvals = 64 << 10

// inval is something that the guest's kernel is to read anew: a node, or a name in one.
type inval struct {
	node uint64
	name string
}

func (i inval) frame() []byte {
	b := make([]byte, wire.FrameHead, 320)
	if i.name != "" {
		return wire.AppendInvalEntry(b, i.node, i.name)
	}
	return wire.AppendInvalInode(b, i.node, false)
}

// invals is a queue in which everything is at most once.
type invals struct {
	mu    sync.Mutex
	queue []inval
	in    map[inval]bool
	wake  chan struct{}
}

func newInvals() *invals { return &invals{in: map[inval]bool{}} }

func (q *invals) attach(wake chan struct{}) {
	q.mu.Lock()
	q.wake = wake
	q.mu.Unlock()
}

func (q *invals) add(i inval) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.in[i] || (i.name != "" && len(q.queue) >= maxInvals) {
		return
	}
	q.in[i] = true
	q.queue = append(q.queue, i)
	if q.wake != nil {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

func (q *invals) next() (inval, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		return inval{}, false
	}
	i := q.queue[0]
	q.queue = q.queue[1:]
	if len(q.queue) == 0 {
		q.queue = nil // its array
	}
	delete(q.in, i)
	return i, true
}

func (q *invals) clear() {
	q.mu.Lock()
	q.queue, q.in = nil, map[inval]bool{}
	q.mu.Unlock()
}
