//go:build linux

package share

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

const (
	// maxFailed bounds the files of which an error is kept for whoever asks next.
	maxFailed = 1024
	// maxOffset is how far into a file there is no doubt that the host's file system can go.
	maxOffset = 1 << 40
)

// behind are the writes that programs were told are done although the host has not answered yet. It lends credit for them while it is
// sure that they will succeed; they are sent in their order, like everything, so only an observer beside the guest could see that they
// are late, and Settle is for whoever is about to tell one.
type behind struct {
	mu sync.Mutex
	// credit is what the host lends, out how much of it is in use, in bytes.
	credit, out int64
	// taken and done count writes.
	taken, done uint64
	closed      bool
	// waits are those who wait for done to get somewhere.
	waits map[chan struct{}]uint64
	// failed are the errors of such writes, by node: as on a disk, who writes on or syncs the file gets to know.
	failed map[uint64]unix.Errno
}

func newBehind() *behind {
	return &behind{waits: map[chan struct{}]uint64{}, failed: map[uint64]unix.Errno{}}
}

// take decides whether a request is answered now, and with which size.
func (b *behind) take(head wire.Header, body []byte) (size uint32, ok bool) {
	if head.Op != wire.OpWrite {
		return 0, false
	}
	w, ok := wire.ParseWrite(body)
	const synced = unix.O_SYNC | unix.O_DSYNC | unix.O_DIRECT
	if !ok || w.Size == 0 || w.Size > wire.MaxData || w.Off > maxOffset || w.Open&synced != 0 {
		return 0, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.out+int64(w.Size) > b.credit || b.closed {
		return 0, false
	}
	b.out += int64(w.Size)
	b.taken++
	return w.Size, true
}

// lend is what the host says.
func (b *behind) lend(bytes uint32) {
	b.mu.Lock()
	b.credit = int64(bytes)
	b.mu.Unlock()
}

// answered is told what came of a write that was taken.
func (b *behind) answered(node uint64, size uint32, errno unix.Errno) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out -= int64(size)
	b.done++
	if errno != 0 {
		for old := range b.failed { // any of them; they are logged
			if len(b.failed) < maxFailed {
				break
			}
			delete(b.failed, old)
		}
		b.failed[node] = errno
	}
	for wait, at := range b.waits {
		if b.done >= at {
			close(wait)
			delete(b.waits, wait)
		}
	}
}

// failure is the error of earlier writes to a file that whoever writes on or syncs it is to be told, once.
func (b *behind) failure(op wire.Op, node uint64) unix.Errno {
	if op != wire.OpWrite && op != wire.OpFsync {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	errno := b.failed[node]
	delete(b.failed, node)
	return errno
}

func (b *behind) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for wait := range b.waits {
		close(wait)
		delete(b.waits, wait)
	}
}

// settled reports whether nothing is under way.
func (b *behind) settled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done >= b.taken || b.closed
}

// settle waits until all that was taken before has been answered, or for ctx.
func (b *behind) settle(ctx context.Context) {
	b.mu.Lock()
	if b.done >= b.taken || b.closed {
		b.mu.Unlock()
		return
	}
	wait := make(chan struct{})
	b.waits[wait] = b.taken
	b.mu.Unlock()
	select {
	case <-wait:
	case <-ctx.Done():
		b.mu.Lock()
		delete(b.waits, wait)
		b.mu.Unlock()
	}
}
