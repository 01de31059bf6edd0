package link

import (
	"sync"
	"sync/atomic"
)

const (
	// inFlight is about how many bytes of bulk a side sends before the other has received them. What is under way delays a
	// keystroke, and a serial port's queues would take half a megabyte; much less than this would slow transfers down.
	inFlight = 96 << 10
	// ackEvery is how many bytes a side receives before it says so, when nothing it sends can carry that along.
	ackEvery = 32 << 10
	// smallWrite is what is sent without regard to inFlight; longer writes are bulk.
	smallWrite = 4 << 10
	// bulkShare is about how many bytes all bulk writers together hand to the multiplexer at once.
	bulkShare = 32 << 10
)

// flow counts the payload bytes of a session's records, modulo 2^32, and holds back bulk writers. It bounds only what lies
// between the two sides; how much an application may leave unread is yamux's window.
type flow struct {
	writers atomic.Int32

	mu sync.Mutex
	// sent counts bytes written here, acked those of them that the other side has received.
	sent, acked uint32
	// received counts bytes read here, told those that the other side knows of.
	received, told uint32
	// room is closed and replaced when acked grows or a writer should look again.
	room chan struct{}
}

func newFlow() *flow { return &flow{room: make(chan struct{})} }

// sending counts a record of n bytes and returns what to tell the other side with it.
func (f *flow) sending(n int) (ack uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent += uint32(n) //nolint:gosec // a record is short
	f.told = f.received
	return f.told
}

// arrived counts a record of n bytes with its acknowledgement; false when that claims more than was sent. tell says that
// the other side should be told now.
func (f *flow) arrived(n int, ack uint32) (tell, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ack-f.acked > f.sent-f.acked {
		return false, false
	}
	if ack != f.acked {
		f.acked = ack
		f.wakeLocked()
	}
	f.received += uint32(n) //nolint:gosec // a record is short
	return f.received-f.told >= ackEvery, true
}

// full returns nil when a bulk writer may go on, else what to wait for.
func (f *flow) full() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sent-f.acked < inFlight {
		return nil
	}
	return f.room
}

// wake makes waiting writers look again.
func (f *flow) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakeLocked()
}

func (f *flow) wakeLocked() {
	close(f.room)
	f.room = make(chan struct{})
}

// enter announces a bulk writer; piece says how much of what is left goes next: less, the more writers there are, and in
// equal pieces, since a short last one costs as much as a long one.
func (f *flow) enter() (piece func(left int) int, leave func()) {
	f.writers.Add(1)
	return func(left int) int {
		longest := min(maxFrameBody, max(smallWrite, bulkShare/int(max(f.writers.Load(), 1))))
		pieces := (left + longest - 1) / longest
		return (left + pieces - 1) / max(pieces, 1)
	}, func() { f.writers.Add(-1) }
}
