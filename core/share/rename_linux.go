package share

import (
	"golang.org/x/sys/unix"
)

func (s *Server) rename(c *call) error { return s.renameTo(c, c.U64(), 0) }

func (s *Server) rename2(c *call) error {
	to, flags := c.U64(), c.U32()
	c.Skip(4)
	if flags != 0 && flags != unix.RENAME_NOREPLACE && flags != unix.RENAME_EXCHANGE {
		return unix.EINVAL
	}
	return s.renameTo(c, to, flags)
}

func (s *Server) renameTo(c *call, newDir uint64, flags uint32) error {
	oldName, newName := c.Name(), c.Name()
	if err := c.End(); err != nil {
		return err
	}
	from, fromDir, err := s.dir(c.Node)
	if err != nil {
		return err
	}
	defer fromDir.close()
	to, toDir, err := s.dir(newDir)
	if err != nil {
		return err
	}
	defer toDir.close()
	s.watcher.ensure(to, toDir)
	moved, st, err := s.child(fromDir, oldName)
	if err != nil {
		return err
	}
	defer moved.close()
	over, overSt, overErr := s.child(toDir, newName)
	defer over.close()
	if from != to && overErr != nil { // a name more there, whose place that directory keeps
		if err := s.quota.reserve(inodeCost); err != nil {
			return err
		}
		defer s.quota.add(-inodeCost)
	}
	oldPath := s.table.path(from, oldName)
	err = retry(func() error { return unix.Renameat2(fromDir.fd, oldName, toDir.fd, newName, uint(flags)) })
	if err != nil {
		return err
	}
	s.grown(to, toDir)
	replaced := s.table.find(to, newName)
	s.table.move(link{from, oldName}, link{to, newName}, flags == unix.RENAME_EXCHANGE)
	s.resettle(s.table.find(to, newName), moved)
	switch {
	case flags == unix.RENAME_EXCHANGE:
		s.resettle(replaced, over)
	case overErr == nil && overSt.identity() != st.identity():
		s.removed(replaced, over, &overSt)
	}
	s.hint(c, from, fromDir)
	if to != from {
		s.hint(c, to, toDir)
	}
	s.emit(Event{
		Path: s.table.path(to, newName), From: oldPath, Action: Renamed, Size: int64(st.Size), PID: c.PID, //nolint:gosec // the kernel's size
	})
	return nil
}

// resettle notes a file's times after a rename, which changes them.
func (s *Server) resettle(n *node, f file) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if st, err := statFD(f.fd); err == nil && n.is(&st) {
		s.settle(n, &st)
	}
}
