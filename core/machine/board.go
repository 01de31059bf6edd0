package machine

import (
	"sync"

	"capsem/core/lifecycle"
	"capsem/core/proto"
)

// board is the VM's status and who watches it.
type board struct {
	mu      sync.Mutex
	status  proto.WorkerStatus
	changed chan struct{} // closed and replaced at each change
	final   bool
}

func newBoard(st proto.WorkerStatus) *board {
	return &board{status: st, changed: make(chan struct{})}
}

// get returns the status and a channel that is closed when it changes; final says that it never will again.
func (b *board) get() (st proto.WorkerStatus, changed <-chan struct{}, final bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status, b.changed, b.final
}

// update changes the status; after finish it does nothing.
func (b *board) update(f func(st *proto.WorkerStatus)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.final {
		return
	}
	f(&b.status)
	close(b.changed)
	b.changed = make(chan struct{})
}

// move changes the state if the table of lifecycle allows it, and reports whether it did.
func (b *board) move(to lifecycle.State) (ok bool) {
	b.update(func(st *proto.WorkerStatus) {
		if ok = lifecycle.Check(st.State, to) == nil; ok {
			st.State = to
		}
	})
	return ok
}

// step says what is being done while the VM boots.
func (b *board) step(text string) {
	b.update(func(st *proto.WorkerStatus) { st.Step = text })
}

// finish sets the last status.
func (b *board) finish(f func(st *proto.WorkerStatus)) {
	b.update(func(st *proto.WorkerStatus) {
		f(st)
		b.final = true // before anybody is woken: nothing wakes them again
	})
}
