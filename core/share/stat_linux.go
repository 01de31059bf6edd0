package share

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// identity tells a file from every other, also from one that gets its inode number later.
type identity struct {
	dev, ino uint64
	btime    int64
}

// version is what changes when a file does: compared, it tells edits by others from what the guest did itself.
type version struct {
	mtime, ctime int64
	size         uint64
	mode, nlink  uint32
}

type stat struct {
	unix.Statx_t
}

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

func statAt(dir int, name string) (stat, error) {
	var st stat
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	err := retry(func() error { return unix.Statx(dir, name, flags, statMask, &st.Statx_t) })
	return st, err
}

func statFD(fd int) (stat, error) { return statAt(fd, "") }

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*int64(time.Second) + int64(t.Nsec) }

func (s *stat) identity() identity {
	id := identity{dev: unix.Mkdev(s.Dev_major, s.Dev_minor), ino: s.Ino}
	if s.Mask&unix.STATX_BTIME != 0 {
		id.btime = nanos(s.Btime)
	}
	return id
}

func (s *stat) version() version {
	return version{mtime: nanos(s.Mtime), ctime: nanos(s.Ctime), size: s.Size, mode: uint32(s.Mode), nlink: s.Nlink}
}

func (s *stat) kind() uint32 { return uint32(s.Mode) & unix.S_IFMT }
func (s *stat) isDir() bool  { return s.kind() == unix.S_IFDIR }

// mounted reports whether another file system begins here.
func (s *stat) mounted() bool { return s.Attributes&s.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 }

// cost is what a file counts for in the quota: its blocks, and something for its inode and for each name.
func (s *stat) cost() int64 {
	names := int64(1)
	if !s.isDir() {
		names = int64(max(1, s.Nlink))
	}
	return int64(s.Blocks)*512 + names*inodeCost //nolint:gosec // the kernel's count of blocks
}

// shareable reports whether a guest may know of files of this kind: devices it may not.
func shareable(kind uint32) bool {
	switch kind {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK:
		return true
	}
	return false
}

// attr is what the guest sees: owned by root, without setuid and setgid.
func (s *stat) attr() wire.Attr {
	at := func(t unix.StatxTimestamp) wire.Time { return wire.Time{Sec: t.Sec, Nsec: t.Nsec} }
	return wire.Attr{
		Ino: s.Ino, Size: s.Size, Blocks: s.Blocks, Atime: at(s.Atime), Mtime: at(s.Mtime), Ctime: at(s.Ctime),
		Mode: uint32(s.Mode) &^ (unix.S_ISUID | unix.S_ISGID), Nlink: s.Nlink, Blksize: min(s.Blksize, wire.MaxData),
	}
}

// errnoOf is the number that the guest is told for err.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return forGuest(errno)
	case errors.Is(err, wire.ErrLongName):
		return unix.ENAMETOOLONG
	case errors.Is(err, wire.ErrName), errors.Is(err, wire.ErrMessage):
		return unix.EINVAL
	}
	return unix.EIO
}

// forGuest keeps from the guest what only means something on the host.
func forGuest(errno syscall.Errno) syscall.Errno {
	switch errno {
	case unix.ENFILE:
		return unix.EMFILE
	case unix.EBADF, unix.ESTALE:
		return errno
	}
	if errno >= 512 { // the kernel's own, which it lets nobody else say
		return unix.EIO
	}
	return errno
}

// retry repeats what a signal interrupted: Go's runtime sends them to its own threads. A count holds off a file system
// that is always interrupted.
func retry(do func() error) error {
	var err error
	for range 100 {
		if err = do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return err
}
