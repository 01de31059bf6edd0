package share

import (
	"sync"

	"capsem/core/share/wire"
)

// maxInvals bounds the invalidations of names that wait to be sent, besides those of names that the guest believes not to exist for
// long. Of those about nodes there are never more than nodes that it knows.
const maxInvals = 64 << 10

// inval is something that the guest's kernel is to read anew: a node, or a name in one.
type inval struct {
	node uint64
	name string
}

func (i inval) frame() []byte {
	b := make([]byte, wire.FrameHead, 320)
	if i.name != "" {
		b = wire.AppendInvalEntry(b, i.node, i.name)
	} else {
		b = wire.AppendInvalInode(b, i.node, false)
	}
	wire.PutHead(b)
	return b
}

// invals is a queue in which everything is at most once. What was forgotten stays in the queue, but not in the set, until it is next
// or the queue is more than half of such.
type invals struct {
	mu    sync.Mutex
	queue []inval
	in    map[inval]bool
	names int
	wake  chan struct{}
}

func newInvals() *invals { return &invals{in: map[inval]bool{}} }

// invalidate queues something that the guest is to read anew, if it knows the node.
func (s *Server) invalidate(i inval) {
	s.table.mu.Lock() // so that the node is not forgotten in between
	defer s.table.mu.Unlock()
	n := s.table.byID[i.node]
	if n == nil {
		return
	}
	if at := (link{n, i.name}); s.table.absent.in[at] {
		s.unlearn(at, maxInvals+maxAbsent)
		return
	}
	s.invals.add(i, maxInvals)
}

func (q *invals) attach(wake chan struct{}) {
	q.mu.Lock()
	q.wake = wake
	q.mu.Unlock()
}

// add reports whether the guest will be told: of a name only if fewer than a limit wait.
func (q *invals) add(i inval, limit int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.in[i] {
		return true
	}
	if i.name != "" && q.names >= limit {
		return false
	}
	if i.name != "" {
		q.names++
	}
	q.in[i] = true
	q.queue = append(q.queue, i)
	if q.wake != nil {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return true
}

func (q *invals) next() (inval, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.queue) > 0 {
		i := q.queue[0]
		q.queue = q.queue[1:]
		if q.in[i] {
			q.remove(i)
			return i, true
		}
	}
	q.queue = nil // its array
	return inval{}, false
}

func (q *invals) remove(i inval) {
	if i.name != "" {
		q.names--
	}
	delete(q.in, i)
}

// forget drops what is queued of a node that the guest does not know any more.
func (q *invals) forget(node uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := (inval{node: node}); q.in[i] {
		q.remove(i)
		q.compact()
	}
}

// compact keeps the queue from growing by what was forgotten. mu is held.
func (q *invals) compact() {
	if len(q.queue) < 2*len(q.in)+64 {
		return
	}
	kept := make([]inval, 0, len(q.in))
	for _, i := range q.queue {
		if q.in[i] {
			kept = append(kept, i)
		}
	}
	q.queue = kept
}

func (q *invals) clear() {
	q.mu.Lock()
	q.queue, q.in, q.names = nil, map[inval]bool{}, 0
	q.mu.Unlock()
}
