//go:build linux

package share

import (
	"container/list"
	"io"
	"slices"
	"sync"

	"capsem/core/share/wire"
)

const (
	// maxWaiting and maxBytes bound the requests without an answer: after that the kernel's queue is not read.
	maxWaiting = wire.MaxRequests / 2
	maxBytes   = 8 << 20
	// maxForgets bounds the messages that forget nodes and are kept until the host is known to have them. Of what is lost
	// beyond it the host remembers a few nodes too many.
	maxForgets = 4096
	// maxUnsent bounds what waits to be written to a stream that is slow.
	maxUnsent = 1024
)

// message is one frame for the host.
type message struct {
	seq    uint64
	op     wire.Op
	unique uint64
	node   uint64
	frame  []byte
	// behind is the size of a write that its program was told is done.
	behind uint32
	// forgets counts the messages that forget, this one included.
	forgets uint64
	sending bool
	// changes is what it changes of directories.
	changes [2]change
}

// outbox is what is to be sent, and what was sent and may have to be again. Whoever puts something in sends it, unless
// somebody else is sending.
type outbox struct {
	// sending is held while writing to the stream.
	sending sync.Mutex

	mu      sync.Mutex
	space   *sync.Cond
	stream  io.WriteCloser
	unsent  list.List
	waiting map[uint64]*message
	forgot  []*message
	init    *message
	seq     uint64
	forgets uint64
	bytes   int
	closed  bool
}

func newOutbox() *outbox {
	o := &outbox{waiting: map[uint64]*message{}}
	o.space = sync.NewCond(&o.mu)
	return o
}

// put takes a message, and waits first if too much is unanswered. It reports false when the mount is closing.
func (o *outbox) put(msg *message) bool {
	o.mu.Lock()
	for !o.closed && (len(o.waiting) >= maxWaiting || (o.bytes > maxBytes && len(o.waiting) > 0) || o.unsent.Len() >= maxUnsent) {
		o.space.Wait()
	}
	if o.closed {
		o.mu.Unlock()
		return false
	}
	o.seq++
	msg.seq = o.seq
	switch {
	case msg.op.Forgets():
		o.forgets++
		o.forgot = append(o.forgot, msg)
		if len(o.forgot) > maxForgets {
			o.forgot = slices.Delete(o.forgot, 0, maxForgets/4)
		}
	case !msg.op.NoReply():
		o.waiting[msg.unique] = msg
		o.bytes += len(msg.frame)
		if msg.op == wire.OpInit && o.init == nil {
			o.init = msg
		}
	}
	msg.forgets = o.forgets
	if o.stream != nil { // begin looks for all others itself
		o.unsent.PushBack(msg)
	}
	o.mu.Unlock()
	o.flush()
	return true
}

// flush sends what is to be sent. Somebody who is sending already sends it all.
func (o *outbox) flush() {
	for o.pending() && o.sending.TryLock() {
		for {
			msg, stream := o.next()
			if msg == nil {
				break
			}
			_, err := stream.Write(msg.frame)
			o.mu.Lock()
			msg.sending = false
			if err != nil && o.stream == stream {
				o.stream = nil // its reader dials again
				o.unsent.Init()
				o.space.Signal()
				_ = stream.Close()
			}
			o.mu.Unlock()
		}
		o.sending.Unlock()
	}
}

func (o *outbox) pending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stream != nil && o.unsent.Len() > 0
}

func (o *outbox) next() (*message, io.WriteCloser) {
	o.mu.Lock()
	defer o.mu.Unlock()
	front := o.unsent.Front()
	if o.stream == nil || front == nil {
		return nil, nil
	}
	msg, _ := o.unsent.Remove(front).(*message)
	msg.sending = true
	if o.unsent.Len() == maxUnsent-1 {
		o.space.Signal()
	}
	return msg, o.stream
}

// answered takes a request as answered. It reports false for one that is not waiting.
func (o *outbox) answered(unique uint64) (msg *message, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	msg, ok = o.waiting[unique]
	if !ok {
		return nil, false
	}
	delete(o.waiting, unique)
	o.bytes -= len(msg.frame)
	o.trim(msg.forgets)
	o.space.Signal()
	if msg != o.init && !msg.sending {
		release(msg)
	}
	return msg, true
}

// changes returns what a request that is waiting changes.
func (o *outbox) changes(unique uint64) (c [2]change) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if msg := o.waiting[unique]; msg != nil {
		c = msg.changes
	}
	return c
}

// trim drops messages that forget and that the host has carried out: they came before something that was answered.
func (o *outbox) trim(done uint64) {
	i := 0
	for i < len(o.forgot) && o.forgot[i].forgets <= done {
		i++
	}
	o.forgot = slices.Delete(o.forgot, 0, i)
}

// resumes reports whether the kernel's INIT was answered, so that the next stream repeats it.
func (o *outbox) resumes() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.init != nil && o.waiting[o.init.unique] == nil
}

// begin makes stream the one to send to, and everything without an answer unsent, in its order, INIT first. forgets is
// how many messages that forget the host has carried out.
func (o *outbox) begin(stream io.WriteCloser, forgets uint64) {
	o.sending.Lock()
	o.mu.Lock()
	o.trim(forgets)
	o.unsent.Init()
	again := append([]*message(nil), o.forgot...)
	if o.init != nil && o.waiting[o.init.unique] == nil {
		o.waiting[o.init.unique] = o.init
		o.bytes += len(o.init.frame)
	}
	for _, msg := range o.waiting {
		again = append(again, msg)
	}
	slices.SortFunc(again, func(a, b *message) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	for _, msg := range again {
		o.unsent.PushBack(msg)
	}
	o.stream = stream
	o.mu.Unlock()
	o.sending.Unlock()
	o.flush()
	o.space.Signal()
}

// end forgets a stream that is over.
func (o *outbox) end(stream io.WriteCloser) {
	o.mu.Lock()
	if o.stream == stream {
		o.stream = nil
		o.unsent.Init()
		o.space.Signal()
	}
	o.mu.Unlock()
}

// close lets nothing in any more and returns what is unanswered.
func (o *outbox) close() []uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.space.Broadcast()
	var out []uint64
	for unique := range o.waiting {
		out = append(out, unique)
	}
	return out
}

// tell sends something that only means anything in this stream.
func (o *outbox) tell(frame []byte) {
	o.mu.Lock()
	if o.stream != nil && !o.closed {
		o.seq++
		o.unsent.PushBack(&message{seq: o.seq, op: wire.OpDone, frame: frame, forgets: o.forgets})
	}
	o.mu.Unlock()
	o.flush()
}
