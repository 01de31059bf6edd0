package peer

import "sync"

const (
	// maxNotes bounds the notes that wait to be handled, maxNoteBytes what they hold together; a side that sends more waits.
	maxNotes, maxNoteBytes = 256, 2 * MaxFrame
)

// queue is the notes that wait to be handled, in order.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting []*frame
	bytes   int
	// ended says that no more come, stopped that nobody waits for room any more.
	ended, stopped bool
}

func newQueue() *queue {
	q := &queue{}
	q.changed.L = &q.mu
	return q
}

// put adds a note when there is room.
func (q *queue) put(f *frame) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.stopped && len(q.waiting) > 0 && (len(q.waiting) >= maxNotes || q.bytes+len(f.Body) > maxNoteBytes) {
		q.changed.Wait()
	}
	if q.stopped {
		return // the connection is over
	}
	q.waiting, q.bytes = append(q.waiting, f), q.bytes+len(f.Body)
	q.changed.Broadcast()
}

// take waits for the next note; nil is the end.
func (q *queue) take() *frame {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.ended {
		q.changed.Wait()
	}
	if len(q.waiting) == 0 {
		return nil
	}
	f := q.waiting[0]
	q.waiting, q.bytes = q.waiting[1:], q.bytes-len(f.Body)
	q.changed.Broadcast()
	return f
}

// end says that no more come.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended, q.stopped = true, true
	q.changed.Broadcast()
}

// stop lets nobody wait for room any more.
func (q *queue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.changed.Broadcast()
}
