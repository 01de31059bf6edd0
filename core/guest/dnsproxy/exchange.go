//go:build linux

package dnsproxy

import (
	"bytes"
	"container/list"
	"context"
	"sync"
	"time"

	"capsem/core/proto"
)

// lookup is one that waits for its answer.
type lookup struct {
	query    proto.DNSQuery
	deadline time.Time
	// answer is called once: with a message, or with nil when the client gets nothing. It must not wait.
	answer func(message []byte)
	// age and unsent are its places in the lists of the same names; unsent is nil once it has been sent.
	age, unsent *list.Element
}

// exchange is the lookups without an answer.
type exchange struct {
	max     int
	timeout time.Duration
	// added wakes expire, ready wakes the carrier.
	added, ready chan struct{}

	mu     sync.Mutex
	closed bool
	// size is that of all messages that wait.
	size    int
	lastID  uint32
	waiting map[uint32]*lookup
	// age has all of them, the oldest first; unsent those that the host does not know of.
	age, unsent *list.List
}

func newExchange(limit int, timeout time.Duration) *exchange {
	if limit == 0 {
		limit = maxWaiting
	}
	if timeout == 0 {
		timeout = answerTime
	}
	return &exchange{
		max: limit, timeout: timeout, added: make(chan struct{}, 1), ready: make(chan struct{}, 1),
		waiting: map[uint32]*lookup{}, age: list.New(), unsent: list.New(),
	}
}

// ask has the host answer a query; its ID is given here. answer is called once, perhaps before ask returns.
func (x *exchange) ask(q proto.DNSQuery, answer func(message []byte)) {
	x.mu.Lock()
	if x.closed || len(x.waiting) >= x.max || x.size+len(q.Message) > maxBytes {
		closed := x.closed
		x.mu.Unlock()
		if closed {
			answer(nil)
		} else {
			answer(failure(q.Message))
		}
		return
	}
	for x.lastID++; x.waiting[x.lastID] != nil; x.lastID++ {
	}
	q.ID = x.lastID
	l := &lookup{query: q, deadline: time.Now().Add(x.timeout), answer: answer}
	l.age, l.unsent = x.age.PushBack(l), x.unsent.PushBack(l)
	x.waiting[q.ID] = l
	x.size += len(q.Message)
	x.mu.Unlock()
	signal(x.added)
	signal(x.ready)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it knows
	}
}

// remove takes a lookup out, so that only the caller answers it. x.mu is held.
func (x *exchange) remove(l *lookup) {
	delete(x.waiting, l.query.ID)
	x.size -= len(l.query.Message)
	x.age.Remove(l.age)
	if l.unsent != nil {
		x.unsent.Remove(l.unsent)
	}
}

// answered passes on an answer of the host's; one that nobody waits for is dropped, and false.
func (x *exchange) answered(r proto.DNSReply) bool {
	x.mu.Lock()
	l := x.waiting[r.ID]
	if l != nil {
		x.remove(l)
	}
	x.mu.Unlock()
	if l == nil {
		return false
	}
	if n := len(r.Message); n > 0 && n < headerSize {
		r.Message = failure(l.query.Message)
	}
	l.answer(r.Message)
	return true
}

// take encodes lookups that the host does not know of yet, up to about limit bytes; nothing when there are none.
func (x *exchange) take(limit int) ([]byte, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out bytes.Buffer
	for x.unsent.Len() > 0 && out.Len() < limit {
		l, ok := x.unsent.Remove(x.unsent.Front()).(*lookup)
		if !ok {
			continue
		}
		l.unsent = nil
		if err := proto.WriteFrame(&out, l.query); err != nil {
			return nil, err //nolint:wrapcheck // says what is wrong
		}
	}
	if x.unsent.Len() > 0 {
		signal(x.ready)
	}
	return out.Bytes(), nil
}

// resend makes every lookup an unsent one: a new stream knows of none.
func (x *exchange) resend() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unsent.Init()
	for e := x.age.Front(); e != nil; e = e.Next() {
		if l, ok := e.Value.(*lookup); ok {
			l.unsent = x.unsent.PushBack(l)
		}
	}
	if x.unsent.Len() > 0 {
		signal(x.ready)
	}
}

// fail answers every lookup with a failure.
func (x *exchange) fail() {
	for _, l := range x.takeUntil(time.Now().Add(2 * x.timeout)) {
		l.answer(failure(l.query.Message))
	}
}

// shut answers every lookup with nothing, also those that are still to come.
func (x *exchange) shut() {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	for _, l := range x.takeUntil(time.Now().Add(2 * x.timeout)) {
		l.answer(nil)
	}
}

// takeUntil takes out the lookups whose time is up at t.
func (x *exchange) takeUntil(t time.Time) []*lookup {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []*lookup
	for e := x.age.Front(); e != nil; e = x.age.Front() {
		l, ok := e.Value.(*lookup)
		if !ok || l.deadline.After(t) {
			break
		}
		x.remove(l)
		out = append(out, l)
	}
	return out
}

// expire answers lookups whose time is up with a failure, until ctx ends. It sleeps as long as there are none.
func (x *exchange) expire(ctx context.Context) {
	timer := time.NewTimer(x.timeout)
	defer timer.Stop()
	for {
		for _, l := range x.takeUntil(time.Now()) {
			l.answer(failure(l.query.Message))
		}
		due := (<-chan time.Time)(nil)
		if t, ok := x.oldest(); ok {
			timer.Reset(time.Until(t))
			due = timer.C
		}
		select {
		case <-due:
		case <-x.added:
		case <-ctx.Done():
			return
		}
	}
}

// oldest says when the next lookup's time is up.
func (x *exchange) oldest() (time.Time, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.age.Front(); e != nil {
		if l, ok := e.Value.(*lookup); ok {
			return l.deadline, true
		}
	}
	return time.Time{}, false
}
