package share

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// beneath keeps the kernel's path walk below the directory it begins in: no "..", no link of any kind, no mount point.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// file is an open file descriptor, of a place (O_PATH) or of a file.
type file struct {
	fd int
	// lent is one that somebody else closes.
	lent bool
}

func (f file) close() {
	if !f.lent && f.fd >= 0 {
		_ = unix.Close(f.fd)
	}
}

// proc is a path that leads to exactly this file, for calls that take no descriptor of a place.
func (f file) proc() string { return "/proc/self/fd/" + strconv.Itoa(f.fd) }

// openBeneath opens a path below dir. A path longer than the kernel takes at once is walked in parts.
func openBeneath(dir int, path string, flags int) (file, error) {
	at := file{fd: dir, lent: true}
	for len(path) >= unix.PathMax {
		cut := strings.LastIndexByte(path[:unix.PathMax-1], '/')
		if cut <= 0 {
			at.close()
			return file{fd: -1}, unix.ENAMETOOLONG
		}
		next, err := openHow(at.fd, path[:cut], unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		at.close()
		if err != nil {
			return next, err
		}
		at, path = next, path[cut+1:]
	}
	defer at.close()
	return openHow(at.fd, path, flags)
}

func openHow(dir int, path string, flags int) (file, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: beneath} //nolint:gosec // flags are not negative
	fd := -1
	err := retry(func() (err error) {
		for range 16 { // EAGAIN: something was renamed while the kernel walked
			if fd, err = unix.Openat2(dir, path, &how); !errors.Is(err, unix.EAGAIN) {
				return err
			}
		}
		return err
	})
	if err != nil {
		return file{fd: -1}, err
	}
	return file{fd: fd}, nil
}

// place opens the place of a node (O_PATH) and makes sure that it still is the file that the guest knows.
func (s *Server) place(n *node) (file, stat, error) {
	if n.id == wire.RootID {
		st, err := statFD(s.rootFD)
		return file{fd: s.rootFD, lent: true}, st, err
	}
	for _, path := range s.table.paths(n) {
		f, err := openBeneath(s.rootFD, path, unix.O_PATH|unix.O_NOFOLLOW)
		if err != nil {
			if moved(err) {
				continue
			}
			return f, stat{}, err
		}
		st, err := statFD(f.fd)
		if err == nil && n.is(&st) {
			return f, st, nil
		}
		f.close()
	}
	return s.placeOfOpen(n)
}

// is reports whether st is of the node's file.
func (n *node) is(st *stat) bool { return st.kind() == n.kind && st.identity() == n.key }

// moved reports whether an error means that something else is in the file's place.
func moved(err error) bool {
	for _, is := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.EACCES} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// placeOfOpen finds a file that has no name any more, or one we do not know, by a handle to it.
func (s *Server) placeOfOpen(n *node) (file, stat, error) {
	s.table.mu.Lock()
	open := append([]*handle(nil), n.open...)
	s.table.mu.Unlock()
	for _, h := range open {
		f, err := h.dup()
		if err != nil {
			continue
		}
		if st, err := statFD(f.fd); err == nil && n.is(&st) {
			return f, st, nil
		}
		f.close()
	}
	return file{fd: -1}, stat{}, unix.ESTALE
}

// dir opens the place of a directory that the guest names.
func (s *Server) dir(id uint64) (*node, file, error) {
	n, err := s.table.get(id)
	if err != nil {
		return nil, file{fd: -1}, err
	}
	if n.kind != unix.S_IFDIR {
		return nil, file{fd: -1}, unix.ENOTDIR
	}
	if n.id == wire.RootID {
		return n, file{fd: s.rootFD, lent: true}, nil
	}
	f, _, err := s.place(n)
	return n, f, err
}

// child opens the place of a name in a directory and returns what it is. Mount points and devices are refused.
func (s *Server) child(dir file, name string) (file, stat, error) {
	f, err := openHow(dir.fd, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ELOOP) {
			err = unix.EACCES
		}
		return f, stat{}, err
	}
	st, err := statFD(f.fd)
	if err == nil && (st.mounted() || !shareable(st.kind())) {
		err = unix.EACCES
	}
	if err != nil {
		f.close()
		return file{fd: -1}, stat{}, err
	}
	return f, st, nil
}

// reopen opens exactly the file of a place. It must be a regular file or a directory. lent says that it had another mode meanwhile.
func (s *Server) reopen(at file, st *stat, flags int) (f file, lent bool, err error) {
	if k := st.kind(); k != unix.S_IFREG && k != unix.S_IFDIR {
		return file{fd: -1}, false, unix.EPERM
	}
	flags |= unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd := -1
	try := func() (err error) { fd, err = unix.Open(at.proc(), flags, 0); return err }
	err = retry(try)
	if errors.Is(err, unix.EACCES) && int(st.Uid) == s.euid && !s.config.ReadOnly {
		// The guest's root may open what its owner may not; for us that takes changing the mode for a moment, under the node's lock.
		mode := uint32(st.Mode) & 0o7777
		if unix.Chmod(at.proc(), mode|0o600|(mode&0o100)) == nil {
			lent = true
			err = retry(try)
			_ = unix.Chmod(at.proc(), mode)
		}
	}
	if err != nil {
		return file{fd: -1}, lent, err
	}
	return file{fd: fd}, lent, nil
}
