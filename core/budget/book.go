package budget

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
)

const (
	// maxRecords bounds the file.
	maxRecords = 65536
	// staleAfter is when the record of a VM that has no limit of its own may be used for another.
	staleAfter = 90 * 24 * time.Hour
	// syncPause is the least time between two writes to the disk itself: a loss of power costs no more than what was spent in it.
	syncPause = time.Second
)

// Book is the file.
type Book struct {
	file *os.File
	path string
	zone *time.Location
	now  func() time.Time

	mu     sync.Mutex
	synced time.Time
	// syncing is a write to the disk itself on its way.
	syncing sync.WaitGroup
	buf     [recordSize]byte
}

// Open opens the file at path, and makes it when it is not there. Days are those of zone; nil is the host's.
func Open(path string, zone *time.Location) (*Book, error) {
	b, err := open(path)
	if err != nil {
		return nil, err
	}
	if zone != nil {
		b.zone = zone
	}
	err = b.locked(func() error { return b.begin() })
	if err != nil {
		return nil, errors.Join(err, b.file.Close())
	}
	return b, nil
}

// open opens the file, whatever is in it.
func open(path string) (*Book, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open budgets: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open budgets: %w", err)
	}
	return &Book{file: f, path: path, zone: time.Local, now: time.Now}, nil
}

// begin writes the head of a new file, and checks that of an old one.
func (b *Book) begin() error {
	n, err := b.file.ReadAt(b.buf[:], 0)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		clear(b.buf[:])
		copy(b.buf[:], magic)
		if _, err := b.file.WriteAt(b.buf[:], 0); err != nil {
			return b.full(err)
		}
		return b.file.Sync() //nolint:wrapcheck // by the caller
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("read budgets: %w", err)
	case n < recordSize || string(b.buf[:len(magic)]) != magic:
		return b.damaged(errDamaged)
	}
	return nil
}

// Close closes the file. Nothing may be under way.
func (b *Book) Close() error {
	b.syncing.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.file.Sync(), b.file.Close())
}

func (b *Book) damaged(err error) error {
	return fault.Wrap(err, fault.Internal, "the record of budgets, %s, is damaged", b.path).
		WithHint("capsem budget reset --all begins it anew; the limits have to be set again")
}

func (b *Book) full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.Wrap(err, fault.NoSpace, "no space left to write %s", b.path).WithHint("free some space on that disk and try again")
	}
	return fmt.Errorf("write budgets: %w", err)
}

// locked runs do while no other process and no other goroutine is at the file.
func (b *Book) locked(do func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	fd := int(b.file.Fd())
	for {
		err := unix.Flock(fd, unix.LOCK_EX)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock budgets: %w", err)
		}
	}
	err := do()
	if unlock := unix.Flock(fd, unix.LOCK_UN); unlock != nil {
		err = errors.Join(err, fmt.Errorf("unlock budgets: %w", unlock))
	}
	return err
}

// sync has what is written put on the disk itself, not often. Nobody waits for it.
func (b *Book) sync() {
	now := time.Now()
	b.mu.Lock()
	due := now.Sub(b.synced) >= syncPause
	if due {
		b.synced = now
	}
	if due {
		// The kernel writes it sooner or later anyway; a disk that fails shows at the next write.
		b.syncing.Go(func() { _ = b.file.Sync() })
	}
	b.mu.Unlock()
}

// read reads the record at a place; io.EOF when there is none.
func (b *Book) read(slot int, r *record) error {
	n, err := b.file.ReadAt(b.buf[:], int64(slot)*recordSize)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		return io.EOF
	case n == recordSize:
		if err := r.decode(b.buf[:]); err != nil {
			return b.damaged(err)
		}
		return nil
	case errors.Is(err, io.EOF):
		return b.damaged(errDamaged)
	}
	return fmt.Errorf("read budgets: %w", err)
}

func (b *Book) write(slot int, r *record) error {
	r.touched = b.now().Unix()
	r.encode(b.buf[:])
	if _, err := b.file.WriteAt(b.buf[:], int64(slot)*recordSize); err != nil {
		return b.full(err)
	}
	return nil
}

// all calls do with every record, until it says false.
func (b *Book) all(do func(slot int, r *record) bool) error {
	var r record
	for slot := 1; slot <= maxRecords; slot++ {
		switch err := b.read(slot, &r); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case !do(slot, &r):
			return nil
		}
	}
	return nil
}

// find returns the record of a scope and its place; slot is a guess. One that is not there is made, but not written.
func (b *Book) find(s Scope, slot int) (*record, int, error) {
	if slot > 0 {
		var r record
		if err := b.read(slot, &r); err == nil && r.scope == s {
			return &r, slot, nil
		}
	}
	free, last := 0, 0
	var found *record
	stale := b.now().Add(-staleAfter).Unix()
	err := b.all(func(at int, r *record) bool {
		last = at
		if r.scope == s {
			one := *r
			found, slot = &one, at
			return false
		}
		if free == 0 && r.scope.Kind == VM && r.touched < stale && !r.limited() {
			free = at
		}
		return true
	})
	if err != nil || found != nil {
		return found, slot, err
	}
	if free == 0 {
		free = last + 1
	}
	if free > maxRecords {
		return nil, 0, fault.New(fault.LimitReached, "there are budgets of %d VMs", maxRecords).WithHint("capsem budget reset --all begins anew")
	}
	return newRecord(s), free, nil
}

func (r *record) limited() bool {
	for p := range r.limit {
		for _, n := range r.limit[p] {
			if n != NoLimit {
				return true
			}
		}
	}
	return false
}
