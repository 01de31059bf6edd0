// Package guard holds locks that last exactly as long as the process that took them: flock on a file that also names the
// process. The kernel lets go of them however the process ends, so nothing has to be cleaned up after a kill.
package guard

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrHeld is returned when another process has the lock.
var ErrHeld = errors.New("another process holds the lock")

// Lock is a lock that is held.
type Lock struct {
	file *os.File
	path string
}

// Acquire takes the lock at path, made with mode 0600 if need be, and writes this process's id into it if the disk has
// room. ErrHeld when another process has it; Holder then says which.
func Acquire(path string) (*Lock, error) {
	for {
		l, err := try(path)
		if err != nil {
			return nil, err
		}
		// Between open and flock a former holder may have removed the file: a lock on a file without a name guards nothing.
		if same(l.file, path) {
			return l, nil
		}
		if err := l.file.Close(); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

func try(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = exclusive(int(f.Fd()))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, ErrHeld), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	if err := sign(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return &Lock{file: f, path: path}, nil
}

// sign writes this process's id. On a full disk it leaves none: the lock counts, the id only says who has it. That of a former
// holder must go then, as another process may have it now.
func sign(f *os.File) error {
	text := strconv.Itoa(os.Getpid()) + "\n"
	_, err := f.WriteAt([]byte(text), 0)
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = f.Truncate(0)
	}
	return err //nolint:wrapcheck // try does
}

// exclusive takes the lock, or fails with EWOULDBLOCK when it is held. Holder takes it shared for a moment: that holds
// nothing, and whoever only looks must not be taken for an owner.
func exclusive(fd int) error {
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err //nolint:wrapcheck // try does
		}
		if err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); err != nil {
			return err //nolint:wrapcheck // try does
		}
		if err := unix.Flock(fd, unix.LOCK_UN); err != nil {
			return err //nolint:wrapcheck // try does
		}
	}
}

func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// Rename moves the lock's file; it stays held.
func (l *Lock) Rename(path string) error {
	if err := os.Rename(l.path, path); err != nil {
		return fmt.Errorf("rename lock: %w", err)
	}
	l.path = path
	return nil
}

// Release removes the file and lets go.
func (l *Lock) Release() error {
	var err error
	if same(l.file, l.path) {
		err = os.Remove(l.path)
	}
	if err = errors.Join(err, l.file.Close()); err != nil {
		return fmt.Errorf("release lock: %w", err)
	}
	return nil
}

// Holder reports whether a process holds the lock at path, and its id if it has written it already.
func Holder(path string) (pid int, held bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("look at lock: %w", err)
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		return 0, false, nil // closing lets go of it
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return 0, false, fmt.Errorf("look at lock %s: %w", path, err)
	}
	text := make([]byte, 20)
	n, _ := f.ReadAt(text, 0) // no id is told by 0
	pid, err = strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil || pid < 2 {
		return 0, true, nil //nolint:nilerr // held, by whom is unknown
	}
	return pid, true, nil
}
