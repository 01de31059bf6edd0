package share

import (
	"errors"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// modeBits are the bits of a mode that a guest can set: never setuid and setgid.
const modeBits = 0o1777

func (s *Server) lookup(c *call) error {
	name := c.Name()
	if err := c.End(); err != nil {
		return err
	}
	parent, dir, err := s.dir(c.Node)
	if err != nil {
		return err
	}
	defer dir.close()
	s.watcher.ensure(parent, dir)
	st, err := statAt(dir.fd, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		c.out = wire.AppendEntry(c.out, wire.Entry{EntryValid: s.absent(parent, name)})
		return nil
	case err != nil:
		return err
	case st.mounted(), !shareable(st.kind()):
		return unix.EACCES
	}
	return s.found(c, parent, dir, name, st)
}

// make carries out what makes a name in a directory: do does it, and what it made must be of the kind.
func (s *Server) make(c *call, name string, kind, mode uint32, do func(dir int) error) error {
	parent, dir, err := s.dir(c.Node)
	if err != nil {
		return err
	}
	defer dir.close()
	s.watcher.ensure(parent, dir)
	if err := s.table.room(); err != nil {
		return err
	}
	if err := s.quota.reserve(inodeCost); err != nil {
		return err
	}
	defer s.quota.add(-inodeCost)
	if err := retry(func() error { return do(dir.fd) }); err != nil {
		return err
	}
	f, st, err := s.child(dir, name)
	if err != nil {
		return err
	}
	defer f.close()
	s.grown(parent, dir)
	if st.kind() != kind {
		return unix.ESTALE // somebody on the host was faster
	}
	if st, err = s.own(f, st, mode); err != nil {
		return err
	}
	n, err := s.made(c, parent, name, &st)
	if err != nil {
		return err
	}
	s.hint(c, parent, dir)
	if kind == unix.S_IFDIR {
		s.hintEmpty(c, n, f)
	}
	s.emit(Event{Path: s.table.path(parent, name), Action: Created, Size: int64(st.Size), PID: c.PID}) //nolint:gosec // the kernel's size
	return nil
}

func (s *Server) mkdir(c *call) error {
	mode := c.U32() & modeBits
	c.Skip(4)
	name := c.Name()
	if err := c.End(); err != nil {
		return err
	}
	return s.make(c, name, unix.S_IFDIR, mode, func(dir int) error { return unix.Mkdirat(dir, name, mode) })
}

// mknod makes regular files, fifos and sockets. Devices are refused.
func (s *Server) mknod(c *call) error {
	mode := c.U32()
	c.Skip(12)
	name := c.Name()
	if err := c.End(); err != nil {
		return err
	}
	kind := mode & unix.S_IFMT
	if kind == 0 {
		kind = unix.S_IFREG
	}
	if kind != unix.S_IFREG && kind != unix.S_IFIFO && kind != unix.S_IFSOCK {
		return unix.EPERM
	}
	mode &= modeBits
	return s.make(c, name, kind, mode, func(dir int) error { return unix.Mknodat(dir, name, kind|mode, 0) })
}

// symlink stores a target as it is: only the guest ever follows it.
func (s *Server) symlink(c *call) error {
	name, target := c.Name(), c.Text()
	if err := c.End(); err != nil {
		return err
	}
	if target == "" {
		return unix.ENOENT
	}
	if len(target) > wire.MaxTarget {
		return unix.ENAMETOOLONG
	}
	return s.make(c, name, unix.S_IFLNK, 0o777, func(dir int) error { return unix.Symlinkat(target, dir, name) })
}

func (s *Server) readlink(c *call) error {
	if err := c.End(); err != nil {
		return err
	}
	n, err := s.table.get(c.Node)
	if err != nil {
		return err
	}
	f, st, err := s.place(n)
	if err != nil {
		return err
	}
	defer f.close()
	if st.kind() != unix.S_IFLNK {
		return unix.EINVAL
	}
	c.room(wire.MaxTarget + 1)
	size, err := unix.Readlinkat(f.fd, "", c.out[headRoom:headRoom+wire.MaxTarget+1])
	if err != nil {
		return err
	}
	c.out = c.out[:headRoom+size]
	return nil
}

func (s *Server) unlink(c *call) error { return s.remove(c, 0) }
func (s *Server) rmdir(c *call) error  { return s.remove(c, unix.AT_REMOVEDIR) }

func (s *Server) remove(c *call, flags int) error {
	name := c.Name()
	if err := c.End(); err != nil {
		return err
	}
	parent, dir, err := s.dir(c.Node)
	if err != nil {
		return err
	}
	defer dir.close()
	f, st, err := s.child(dir, name)
	if err != nil {
		return err
	}
	defer f.close()
	path := s.table.path(parent, name)
	if err := retry(func() error { return unix.Unlinkat(dir.fd, name, flags) }); err != nil {
		return err
	}
	s.removed(s.table.drop(parent, name), f, &st)
	s.hint(c, parent, dir)
	s.emit(Event{Path: path, Action: Deleted, Size: int64(st.Size), PID: c.PID}) //nolint:gosec // the kernel's size
	return nil
}

// removed notes that a file lost a name. n is nil if the guest had not known it; f is its place.
func (s *Server) removed(n *node, f file, before *stat) {
	now, err := statFD(f.fd)
	if err != nil {
		return
	}
	gone := now.Nlink == 0 || now.isDir()
	if n == nil || !n.is(&now) {
		if gone {
			s.quota.add(-before.cost())
		}
		return
	}
	s.table.mu.Lock()
	open := len(n.open) > 0
	s.table.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	s.base(n, before)
	if gone && !open {
		s.uncharge(n)
		return
	}
	s.settle(n, &now)
}

func (s *Server) link(c *call) error {
	old := c.U64()
	name := c.Name()
	if err := c.End(); err != nil {
		return err
	}
	n, err := s.table.get(old)
	if err != nil {
		return err
	}
	if n.kind == unix.S_IFDIR {
		return unix.EPERM
	}
	parent, dir, err := s.dir(c.Node)
	if err != nil {
		return err
	}
	defer dir.close()
	s.watcher.ensure(parent, dir)
	n.mu.Lock()
	defer n.mu.Unlock()
	f, _, err := s.place(n)
	if err != nil {
		return err
	}
	defer f.close()
	if err := s.quota.reserve(inodeCost); err != nil {
		return err
	}
	defer s.quota.add(-inodeCost)
	if err := unix.Linkat(unix.AT_FDCWD, f.proc(), dir.fd, name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	st, err := statFD(f.fd)
	if err != nil {
		return err
	}
	if _, _, err := s.table.attach(parent, name, &st); err != nil {
		return err
	}
	s.settle(n, &st)
	s.grown(parent, dir)
	c.out = wire.AppendEntry(c.out, s.entryOf(n, parent, &st))
	s.hint(c, parent, dir)
	s.emit(Event{Path: s.table.path(parent, name), Action: Created, Size: int64(st.Size), PID: c.PID}) //nolint:gosec // the kernel's size
	return nil
}
