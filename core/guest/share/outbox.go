//go:build linux

package share

import (
	"container/list"
	"io"
	"slices"
	"sync"
	"time"

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
	// lazyFor is how long a message that no program waits for waits for one to go along with, and maxLazy how many do.
	lazyFor = time.Millisecond
	maxLazy = 32
	// maxTogether is the most that goes in one write, but for a message that is larger.
	maxTogether = 32 << 10
)

// message is one frame for the host.
type message struct {
	seq    uint64
	op     wire.Op
	unique uint64
	node   uint64
	frame  []byte
	// told says that the kernel was told that it is done; behind is the size of a write like that.
	told   bool
	behind uint32
	// forgets counts the messages that forget, this one included.
	forgets uint64
	sending bool
	// changes is what it changes of directories.
	changes [2]change
	// lazy says that no program waits for it.
	lazy bool
}

// outbox is what is to be sent, and what was sent and may have to be again. Whoever puts something in sends it, unless
// somebody else is sending.
type outbox struct {
	// sending is held while writing to the stream.
	sending sync.Mutex
	// together is what is written at once; whoever is sending has it.
	together []byte
	// later sends what is lazy.
	later *time.Timer

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
	o.later = time.AfterFunc(time.Hour, o.flush)
	o.later.Stop()
	return o
}

// put takes a message, and waits first if too much is unanswered. It reports false when the mount is closing.
func (o *outbox) put(msg *message) bool {
	o.mu.Lock()
	for !o.closed && (len(o.waiting) >= maxWaiting || (o.bytes > maxBytes && len(o.waiting) > 0) || o.unsent.Len() >= maxUnsent) {
		if o.later.Stop() { // nobody else would send it
			o.mu.Unlock()
			o.flush()
			o.mu.Lock()
			continue
		}
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
	waits := false
	if o.stream != nil { // begin looks for all others itself
		o.unsent.PushBack(msg)
		waits = msg.lazy && o.unsent.Len() < maxLazy
		if o.unsent.Len() == 1 && waits {
			o.later.Reset(lazyFor)
		}
	}
	o.mu.Unlock()
	if !waits {
		o.flush()
	}
	return true
}

// flush sends what is to be sent. Somebody who is sending already sends it all.
func (o *outbox) flush() {
	for o.pending() && o.sending.TryLock() {
		for {
			sent, stream := o.next()
			if len(sent) == 0 {
				break
			}
			_, err := stream.Write(o.frames(sent))
			o.mu.Lock()
			for _, msg := range sent {
				msg.sending = false
			}
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

// frames are messages in one piece.
func (o *outbox) frames(sent []*message) []byte {
	if len(sent) == 1 {
		return sent[0].frame
	}
	o.together = o.together[:0]
	for _, msg := range sent {
		o.together = append(o.together, msg.frame...)
	}
	return o.together
}

func (o *outbox) pending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stream != nil && o.unsent.Len() > 0
}

// next takes what is to be written at once.
func (o *outbox) next() (sent []*message, stream io.WriteCloser) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stream == nil {
		return nil, nil
	}
	o.later.Stop()
	full, size := o.unsent.Len() >= maxUnsent, 0
	for front := o.unsent.Front(); front != nil; front = o.unsent.Front() {
		msg, _ := front.Value.(*message)
		if size += len(msg.frame); len(sent) > 0 && size > maxTogether {
			break
		}
		o.unsent.Remove(front)
		msg.sending = true
		sent = append(sent, msg)
	}
	if full {
		o.space.Signal()
	}
	return sent, o.stream
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
	o.later.Stop()
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
