package share

import (
	"math"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// at opens the place of a node, until done is called: of the handle that the guest names, if it does.
func (s *Server) at(n *node, byHandle bool, fh uint64) (f file, st stat, done func(), err error) {
	if byHandle {
		if h, err := s.handle(fh, n.id, n.kind == unix.S_IFDIR); err == nil {
			if fd, done, err := h.use(); err == nil {
				st, err := statFD(fd)
				return file{fd: fd, lent: true}, st, done, err
			}
		}
	}
	f, st, err = s.place(n)
	return f, st, f.close, err
}

func (s *Server) getattr(c *call) error {
	flags := c.U32()
	c.Skip(4)
	fh := c.U64()
	if err := c.End(); err != nil {
		return err
	}
	n, err := s.table.get(c.Node)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, st, done, err := s.at(n, flags&wire.GetattrFh != 0, fh)
	defer done()
	if err != nil {
		return err
	}
	s.observe(n, &st)
	c.out = wire.AppendAttrOut(c.out, s.attrValid(n, &st), st.attr())
	return nil
}

// setting is the body of SETATTR.
type setting struct {
	valid        uint32
	fh, size     uint64
	atime, mtime unix.Timespec
	mode         uint32
}

func parseSetting(c *call) (setting, error) {
	var p setting
	p.valid = c.U32()
	c.Skip(4)
	p.fh, p.size = c.U64(), c.U64()
	c.Skip(8)
	at, mt := c.U64(), c.U64()
	c.Skip(8)
	an, mn := c.U32(), c.U32()
	c.Skip(4)
	p.mode = c.U32() & modeBits
	c.Skip(16)
	if err := c.End(); err != nil {
		return p, err
	}
	if p.size > math.MaxInt64 || an >= 1e9 || mn >= 1e9 {
		return p, unix.EINVAL
	}
	p.atime = when(p.valid&wire.SetAtime != 0, p.valid&wire.SetAtimeNow != 0, at, an)
	p.mtime = when(p.valid&wire.SetMtime != 0, p.valid&wire.SetMtimeNow != 0, mt, mn)
	return p, nil
}

func when(set, now bool, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case !set:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case now:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)} //nolint:gosec // its bits: before 1970
}

// setattr sets size, mode and times. The owner stays: to the guest everything is root's, whatever it asks for.
func (s *Server) setattr(c *call) error {
	p, err := parseSetting(c)
	if err != nil {
		return err
	}
	n, err := s.table.get(c.Node)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f, st, done, err := s.at(n, p.valid&wire.SetFh != 0, p.fh)
	defer done()
	if err != nil {
		return err
	}
	s.base(n, &st)
	if p.valid&wire.SetSize != 0 {
		if err := s.truncate(f, &st, int64(p.size)); err != nil { //nolint:gosec // checked when parsed
			return err
		}
	}
	if p.valid&wire.SetMode != 0 {
		if err := unix.Chmod(f.proc(), p.mode|inherited(&st)); err != nil {
			return err
		}
	}
	if p.valid&(wire.SetAtime|wire.SetMtime) != 0 {
		times := []unix.Timespec{p.atime, p.mtime}
		if err := unix.UtimesNanoAt(f.fd, "", times, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if st, err = statFD(f.fd); err != nil {
		return err
	}
	if p.valid&wire.SetSize != 0 {
		strip(f, &st)
	}
	s.settle(n, &st)
	c.out = wire.AppendAttrOut(c.out, s.attrValid(n, &st), st.attr())
	if p.valid&(wire.SetSize|wire.SetMode) != 0 {
		s.emit(Event{Path: s.nameOf(n), Action: Modified, Size: int64(st.Size), PID: c.PID}) //nolint:gosec // the kernel's size
	}
	return nil
}

// inherited is the setgid bit of a directory, which belongs to the host.
func inherited(st *stat) uint32 {
	if st.isDir() {
		return uint32(st.Mode) & unix.S_ISGID
	}
	return 0
}

func (s *Server) truncate(f file, st *stat, size int64) error {
	if st.kind() != unix.S_IFREG {
		return unix.EINVAL
	}
	w, _, err := s.reopen(f, st, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer w.close()
	return retry(func() error { return unix.Ftruncate(w.fd, size) })
}

// nameOf is a path of a node for events; a file without a name has "".
func (s *Server) nameOf(n *node) string {
	if p := s.table.paths(n); len(p) > 0 {
		return p[0]
	}
	return ""
}
