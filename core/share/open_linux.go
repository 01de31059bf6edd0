package share

import (
	"errors"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

const (
	// openFlags of the guest are passed on, keptFlags remembered with a handle. O_APPEND is not passed on: the guest says
	// where it writes, and a write repeated after a stream broke must not be appended twice.
	openFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_SYNC
	keptFlags = unix.O_ACCMODE | unix.O_SYNC | unix.O_APPEND
)

func (s *Server) open(c *call) error {
	flags := int(c.U32())
	c.Skip(4)
	if err := c.End(); err != nil {
		return err
	}
	n, err := s.table.get(c.Node)
	if err != nil {
		return err
	}
	if s.config.ReadOnly && flags&(unix.O_ACCMODE|unix.O_TRUNC) != unix.O_RDONLY {
		return unix.EROFS
	}
	if err := s.handles.room(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	at, st, err := s.place(n)
	if err != nil {
		return err
	}
	defer at.close()
	known, err := s.openAt(n, at, &st, flags)
	if err != nil {
		return err
	}
	h, err := s.addHandle(n, known.f, flags, false, c.PID)
	if err != nil {
		return err
	}
	h.dirty.Store(flags&unix.O_TRUNC != 0)
	c.out = wire.AppendOpen(c.out, h.id, known.flags)
	return nil
}

type opened struct {
	f     file
	flags uint32
}

// openAt opens a regular file and says whether what the guest has cached of it is still good. n.mu is held.
func (s *Server) openAt(n *node, at file, st *stat, flags int) (opened, error) {
	if st.kind() != unix.S_IFREG {
		return opened{}, unix.EPERM
	}
	s.base(n, st)
	var out opened
	if s.observe(n, st) {
		out.flags = wire.OpenKeepCache
	}
	f, lent, err := s.reopen(at, st, flags&openFlags)
	if err != nil {
		return opened{}, err
	}
	out.f = f
	if flags&unix.O_TRUNC == 0 && !lent {
		return out, nil
	}
	if now, err := statFD(f.fd); err == nil && seenOf(&now) != n.seen {
		if flags&unix.O_TRUNC != 0 {
			strip(f, &now)
		}
		s.settle(n, &now) // truncated, or its mode was changed to open it
	}
	return out, nil
}

func (s *Server) create(c *call) error {
	flags, mode := int(c.U32()), c.U32()&modeBits
	c.Skip(8)
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
	if err := errors.Join(s.handles.room(), s.table.room()); err != nil {
		return err
	}
	if err := s.quota.reserve(inodeCost); err != nil {
		return err
	}
	defer s.quota.add(-inodeCost)
	f, err := openHow2(dir.fd, name, flags&openFlags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_NONBLOCK, mode)
	if errors.Is(err, unix.EEXIST) && flags&unix.O_EXCL == 0 {
		return s.createOver(c, parent, dir, name, flags)
	}
	if err != nil {
		return err
	}
	s.grown(parent, dir)
	if err := s.created(c, f, parent, name, flags, mode); err != nil {
		return err
	}
	s.hint(c, parent, dir)
	return nil
}

// openHow2 makes a file; O_EXCL among the flags says that nothing that exists is opened.
func openHow2(dir int, name string, flags int, mode uint32) (file, error) {
	fd := -1
	err := retry(func() (err error) { fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode); return err })
	return file{fd: fd}, err
}

// createOver opens a file that appeared since the guest looked.
func (s *Server) createOver(c *call, parent *node, dir file, name string, flags int) error {
	at, st, err := s.child(dir, name)
	if err != nil {
		return err
	}
	defer at.close()
	if st.kind() == unix.S_IFLNK {
		return unix.ELOOP
	}
	n, _, err := s.table.attach(parent, name, &st)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	known, err := s.openAt(n, at, &st, flags)
	if err == nil {
		if st, err = statFD(known.f.fd); err != nil {
			known.f.close()
		}
	}
	var h *handle
	if err == nil {
		h, err = s.addHandle(n, known.f, flags, false, c.PID)
	}
	if err != nil {
		s.table.forget(n.id, 1)
		return err
	}
	c.out = wire.AppendEntry(c.out, s.entryOf(n, parent, &st))
	c.out = wire.AppendOpen(c.out, h.id, known.flags)
	return nil
}

// created answers with a new file that is open. It owns f.
func (s *Server) created(c *call, f file, parent *node, name string, flags int, mode uint32) error {
	st, err := statFD(f.fd)
	if err == nil {
		st, err = s.own(f, st, mode)
	}
	var n *node
	if err == nil {
		n, err = s.made(c, parent, name, &st)
	}
	if err != nil {
		f.close()
		return err
	}
	h, err := s.addHandle(n, f, flags, false, c.PID)
	if err != nil {
		s.table.forget(n.id, 1)
		return err
	}
	c.out = wire.AppendOpen(c.out, h.id, wire.OpenKeepCache)
	if parent != nil {
		s.emit(Event{Path: s.table.path(parent, name), Action: Created, PID: c.PID})
	}
	return nil
}

// tmpfile makes a file without a name.
func (s *Server) tmpfile(c *call) error {
	flags, mode := int(c.U32()), c.U32()&modeBits
	if err := c.Err(); err != nil {
		return err // what follows is not used
	}
	_, dir, err := s.dir(c.Node)
	if err != nil {
		return err
	}
	defer dir.close()
	if err := errors.Join(s.handles.room(), s.table.room()); err != nil {
		return err
	}
	if err := s.quota.reserve(inodeCost); err != nil {
		return err
	}
	defer s.quota.add(-inodeCost)
	f, err := openHow2(dir.fd, ".", flags&(openFlags|unix.O_EXCL)|unix.O_TMPFILE, mode)
	if err != nil {
		return err
	}
	return s.created(c, f, nil, "", flags, mode)
}

func (s *Server) release(c *call) error {
	fh := c.U64()
	if err := c.Err(); err != nil {
		return err
	}
	h := s.dropHandle(fh, c.Node, false)
	if h == nil {
		return unix.EBADF
	}
	s.flushEvent(h, c.PID)
	s.shut(h)
	return nil
}

// flushEvent reports what was written through a handle.
func (s *Server) flushEvent(h *handle, pid uint32) {
	if !h.dirty.Swap(false) || s.config.Events == nil { // nothing was written, or nobody asks
		return
	}
	if pid == 0 { // the kernel closes for nobody in particular
		pid = h.pid
	}
	fd, done, err := h.use()
	if err != nil {
		return
	}
	defer done()
	if st, err := statFD(fd); err == nil && st.Nlink > 0 {
		s.emit(Event{Path: s.nameOf(h.node), Action: Modified, Size: int64(st.Size), PID: pid}) //nolint:gosec // the kernel's size
	}
}

func (s *Server) fsync(c *call) error { return s.syncHandle(c, false) }

func (s *Server) syncHandle(c *call, dir bool) error {
	fh, flags := c.U64(), c.U32()
	if err := c.Err(); err != nil {
		return err
	}
	h, err := s.handle(fh, c.Node, dir)
	if err != nil {
		return err
	}
	s.flushEvent(h, c.PID)
	fd, done, err := h.use()
	if err != nil {
		return err
	}
	defer done()
	if flags&1 != 0 {
		return retry(func() error { return unix.Fdatasync(fd) })
	}
	return retry(func() error { return unix.Fsync(fd) })
}
