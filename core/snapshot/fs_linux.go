package snapshot

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// beneath keeps the kernel's path walk below the directory it begins in: no "..", no link of any kind, no mount point.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openBeneath opens a path below dir, "" for dir itself. A path longer than the kernel takes at once is walked in parts.
func openBeneath(dir int, path string, flags int) (int, error) {
	at := dir
	for len(path) >= unix.PathMax {
		cut := strings.LastIndexByte(path[:unix.PathMax-1], '/')
		if cut <= 0 {
			closeOther(at, dir)
			return -1, unix.ENAMETOOLONG
		}
		next, err := openHow(at, path[:cut], unix.O_PATH|unix.O_DIRECTORY)
		closeOther(at, dir)
		if err != nil {
			return -1, err
		}
		at, path = next, path[cut+1:]
	}
	defer closeOther(at, dir)
	if path == "" {
		path = "."
	}
	return openHow(at, path, flags)
}

func openHow(dir int, path string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: beneath} //nolint:gosec // flags are not negative
	fd := -1
	err := retry(func() (err error) {
		for range 64 { // EAGAIN: something was renamed while the kernel walked
			if fd, err = unix.Openat2(dir, path, &how); !errors.Is(err, unix.EAGAIN) {
				return err
			}
		}
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// openAnyway opens a file or directory of ours whose mode keeps us out, as the guest's root would: its mode is wider for a moment.
func openAnyway(dir int, name string, flags int) (int, error) {
	at, err := openHow(dir, name, unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(at) }()
	st, err := statFD(at)
	if err != nil {
		return -1, err
	}
	if st.kind != kindFile && st.kind != kindDir {
		return -1, unix.ELOOP
	}
	proc := "/proc/self/fd/" + strconv.Itoa(at)
	if err := unix.Chmod(proc, st.mode|0o700); err != nil {
		return -1, err
	}
	fd := -1
	err = retry(func() (err error) { fd, err = unix.Open(proc, flags|unix.O_CLOEXEC, 0); return err })
	if err := errors.Join(err, unix.Chmod(proc, st.mode)); err != nil {
		closeOther(fd, -1)
		return -1, err
	}
	return fd, nil
}

// exchange swaps two entries in one step.
func exchange(fromDir int, from string, toDir int, to string) error {
	return unix.Renameat2(fromDir, from, toDir, to, unix.RENAME_EXCHANGE)
}

// moveTo renames to where there is nothing.
func moveTo(fromDir int, from string, toDir int, to string) error {
	return unix.Renameat2(fromDir, from, toDir, to, unix.RENAME_NOREPLACE)
}

// cloneFile makes a new file that shares the blocks of an open one.
func cloneFile(src, dir int, name string) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, err
	}
	if err := unix.IoctlFileClone(fd, src); err != nil {
		return -1, errors.Join(errNoClone, err, unix.Close(fd), unix.Unlinkat(dir, name, 0))
	}
	return fd, nil
}

// syncAll makes all that was written to the file system of fd durable.
func syncAll(fd int) error { return unix.Syncfs(fd) }

// settle starts writing what is dirty of a file, so that a later write through a mapping shows in its times.
func settle(fd int) error {
	return unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE)
}

func statOf(st *unix.Stat_t) stat {
	return stat{
		kind: kindOf(st.Mode), mode: st.Mode & modeBits, dev: st.Dev, ino: st.Ino, uid: st.Uid, gid: st.Gid,
		nlink: uint64(st.Nlink), size: st.Size, blocks: st.Blocks, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(), //nolint:unconvert // 32 bits on arm64
	}
}
