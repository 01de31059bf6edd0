package snapshot

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// openBeneath opens a path below dir, "" for dir itself. It goes from directory to directory and follows no link.
func openBeneath(dir int, path string, flags int) (int, error) {
	at := dir
	for {
		name, rest, more := strings.Cut(path, "/")
		if name == "" {
			name = "."
		}
		how := flags
		if more {
			how = unix.O_RDONLY | unix.O_DIRECTORY
		}
		next, err := openHow(at, name, how)
		closeOther(at, dir)
		if err != nil || !more {
			return next, err
		}
		at, path = next, rest
	}
}

func openHow(dir int, name string, flags int) (int, error) {
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// openAnyway cannot be done without a race here; what keeps us out is skipped.
func openAnyway(_ int, _ string, _ int) (int, error) { return -1, unix.EACCES }

// exchange swaps two entries in one step.
func exchange(fromDir int, from string, toDir int, to string) error {
	return unix.RenameatxNp(fromDir, from, toDir, to, unix.RENAME_SWAP)
}

// moveTo renames to where there is nothing.
func moveTo(fromDir int, from string, toDir int, to string) error {
	return unix.RenameatxNp(fromDir, from, toDir, to, unix.RENAME_EXCL)
}

// cloneFile makes a new file that shares the blocks of an open one.
func cloneFile(src, dir int, name string) (int, error) {
	if err := unix.Fclonefileat(src, dir, name, unix.CLONE_NOFOLLOW); err != nil {
		return -1, errors.Join(errNoClone, err)
	}
	if err := unix.Fchmodat(dir, name, 0o600, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return -1, err
	}
	return openHow(dir, name, unix.O_RDWR)
}

// syncAll makes all that was written durable: there is no call for one file system.
func syncAll(fd int) error {
	return errors.Join(unix.Sync(), unix.Fsync(fd))
}

// settle has nothing to do: a write through a mapping shows in a file's times when it is flushed.
func settle(_ int) error { return nil }

func statOf(st *unix.Stat_t) stat {
	return stat{
		kind: kindOf(uint32(st.Mode)), mode: uint32(st.Mode) & modeBits, dev: uint64(st.Dev), ino: st.Ino, uid: st.Uid, gid: st.Gid,
		nlink: uint64(st.Nlink), size: st.Size, blocks: st.Blocks, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
	}
}
