package snapshot

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// modeBits are the bits of a mode that are kept: never setuid and setgid, which a guest cannot set either.
	modeBits = 0o1777
	// xattrPrefix is of the attributes that a guest may have.
	xattrPrefix = "user."
	// readFlags open what may be swapped for anything: a named pipe does not block, a link is not followed.
	readFlags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	dirFlags  = unix.O_RDONLY | unix.O_DIRECTORY
)

// errNoClone says that a file system cannot share blocks.
var errNoClone = errors.New("cannot share blocks")

// stat is what the file system says of an entry.
type stat struct {
	kind                       kind // 0 for what is neither file, directory nor symlink
	mode, uid, gid             uint32
	dev, ino, nlink            uint64
	size, blocks, mtime, ctime int64
}

func kindOf(mode uint32) kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return kindFile
	case unix.S_IFDIR:
		return kindDir
	case unix.S_IFLNK:
		return kindSymlink
	}
	return 0
}

func statAt(dir int, name string) (stat, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return statOf(&st), err
}

func statFD(fd int) (stat, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(fd, &st) })
	return statOf(&st), err
}

// describe makes the entry of what was found at a path.
func (st *stat) describe(path string) entry {
	return entry{
		path: path, kind: st.kind, mode: st.mode, uid: st.uid, gid: st.gid, ino: st.ino, size: st.size, mtime: st.mtime, ctime: st.ctime,
	}
}

func retry(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// closeOther closes fd unless it is the one that stays.
func closeOther(fd, stays int) {
	if fd >= 0 && fd != stays {
		_ = unix.Close(fd)
	}
}

// gone reports whether an error means that something is no longer there, or that something else is in its place.
func gone(err error) bool {
	for _, is := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.ENXIO, unix.EISDIR, unix.ESTALE} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// denied reports whether an error means that the mode keeps us out.
func denied(err error) bool { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }

// openIn opens a file or directory below a directory. What is neither is refused like what is not there.
func openIn(root int, path string, flags int) (*os.File, stat, error) {
	fd, err := openBeneath(root, path, flags)
	if denied(err) && path != "" {
		fd, err = openSlowly(root, path, flags)
	}
	if err != nil {
		return nil, stat{}, err
	}
	st, err := statFD(fd)
	if err == nil && st.kind != kindFile && st.kind != kindDir {
		err = unix.ESTALE
	}
	if err != nil {
		closeOther(fd, -1)
		return nil, st, err
	}
	return os.NewFile(uintptr(fd), path), st, nil
}

// slowly keeps those apart that change modes for a moment: each would take the other's for the one to give back.
var slowly sync.Mutex

// openSlowly goes from directory to directory and opens each even if its mode keeps us out.
func openSlowly(root int, path string, flags int) (int, error) {
	slowly.Lock()
	defer slowly.Unlock()
	at := root
	for {
		name, rest, more := strings.Cut(path, "/")
		how := flags
		if more {
			how = dirFlags
		}
		next := -1
		err := widened(at, func() (err error) {
			if next, err = openHow(at, name, how); denied(err) {
				next, err = openAnyway(at, name, how)
			}
			return err
		})
		closeOther(at, root)
		if err != nil || !more {
			return next, err
		}
		at, path = next, rest
	}
}

// widened does something in a directory, whose mode is wider meanwhile if it keeps us out.
func widened(dir int, do func() error) error {
	err := do()
	if !denied(err) {
		return err
	}
	st, serr := statFD(dir)
	if serr != nil || st.mode&0o700 == 0o700 {
		return err
	}
	if unix.Fchmod(dir, st.mode|0o700) != nil {
		return err
	}
	return errors.Join(do(), unix.Fchmod(dir, st.mode))
}

// readlink reads the target of a symlink.
func readlink(dir int, name string) (string, error) {
	buf := make([]byte, maxTarget+1)
	n := 0
	err := retry(func() (err error) { n, err = unix.Readlinkat(dir, name, buf); return err })
	if err == nil && (n == 0 || n > maxTarget) {
		err = unix.ENAMETOOLONG
	}
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// readXattrs reads the attributes that a guest may have. What does not fit our bounds is left out.
func readXattrs(fd int) []xattr {
	n, err := unix.Flistxattr(fd, nil)
	if err != nil || n <= 0 || n > maxXattrs {
		return nil
	}
	names := make([]byte, n)
	if n, err = unix.Flistxattr(fd, names); err != nil {
		return nil
	}
	var out []xattr
	left := maxXattrs
	for name := range bytes.SplitSeq(names[:n], []byte{0}) {
		if !validXattr(string(name)) {
			continue
		}
		value := make([]byte, maxXattrs)
		n, err := unix.Fgetxattr(fd, string(name), value)
		if left -= len(name) + max(n, 0); err != nil || left < 0 {
			continue
		}
		out = append(out, xattr{string(name), string(value[:n])})
	}
	slices.SortFunc(out, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return out
}

// writeXattrs gives a file exactly these attributes.
func writeXattrs(fd int, want []xattr) error {
	for _, x := range readXattrs(fd) {
		if !slices.ContainsFunc(want, func(w xattr) bool { return w.name == x.name }) {
			if err := unix.Fremovexattr(fd, x.name); err != nil {
				return err
			}
		}
	}
	for _, x := range want {
		if err := unix.Fsetxattr(fd, x.name, []byte(x.value), 0); err != nil {
			return err
		}
	}
	return nil
}
