package share

import (
	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// hint tells the guest side how a directory is that a request has changed, unless others may change it unseen.
func (s *Server) hint(c *call, n *node, dir file) {
	if !c.hinted {
		return
	}
	st, err := statFD(dir.fd)
	if err != nil || !n.is(&st) {
		return
	}
	if valid := s.attrValid(n, &st); valid == longValid {
		attr := wire.AppendAttrOut(make([]byte, 0, wire.AttrOutSize), valid, st.attr())
		c.hints = wire.AppendHint(c.hints, wire.Hint{Unique: c.Unique, Node: n.id, Attr: attr})
	}
}

// hintEmpty tells it of a directory that was just made: what others make in it from now on is seen.
func (s *Server) hintEmpty(c *call, n *node, at file) {
	if !c.hinted {
		return
	}
	s.watcher.ensure(n, at)
	s.table.mu.Lock()
	watched := n.watch != 0
	s.table.mu.Unlock()
	if watched && empty(at) {
		c.hints = wire.AppendHint(c.hints, wire.Hint{Unique: c.Unique, Node: n.id, Empty: true})
	}
}

func empty(at file) bool {
	f, err := openHow(at.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer f.close()
	buf := make([]byte, 1024)
	n, err := unix.Getdents(f.fd, buf)
	if err != nil {
		return false
	}
	_, _, names := unix.ParseDirent(buf[:n], 1, nil) // leaves out "." and ".."
	return len(names) == 0
}
