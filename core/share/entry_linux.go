package share

import (
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// found answers with a file that exists at a name.
func (s *Server) found(c *call, parent *node, dir file, name string, st stat) error {
	n, _, err := s.table.attach(parent, name, &st)
	if err != nil {
		return err
	}
	n.mu.Lock()
	if seenOf(&st) != n.seen { // perhaps the guest changed it after st was taken: look again, now that it cannot
		if again, err := statAt(dir.fd, name); err == nil && n.is(&again) {
			st = again
			s.observe(n, &st)
		}
	}
	n.mu.Unlock()
	c.out = wire.AppendEntry(c.out, s.entryOf(n, parent, &st))
	return nil
}

// made answers with a file that the guest made just now.
func (s *Server) made(c *call, parent *node, name string, st *stat) (*node, error) {
	s.quota.add(st.cost())
	n, _, err := s.table.attach(parent, name, st)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.seen, n.charged = seenOf(st), st.cost()
	n.mu.Unlock()
	c.out = wire.AppendEntry(c.out, s.entryOf(n, parent, st))
	return n, nil
}

// observe compares a file with what the guest knows of it and tells it of edits by others. n.mu is held. It reports
// whether all was as known.
func (s *Server) observe(n *node, st *stat) bool {
	now := seenOf(st)
	if now == n.seen {
		return true
	}
	n.seen = now
	s.charge(n, st)
	s.invalidate(inval{node: n.id})
	return false
}

func (s *Server) entryOf(n, parent *node, st *stat) wire.Entry {
	e := wire.Entry{Node: n.id, Generation: n.generation, EntryValid: shortValid, AttrValid: s.attrValid(n, st), Attr: st.attr()}
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	if parent != nil && parent.watch != 0 {
		e.EntryValid = longValid
	}
	return e
}

// attrValid is for how long the guest may cache attributes. Of a file with several names not all directories need be
// watched.
func (s *Server) attrValid(n *node, st *stat) time.Duration {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	switch {
	case st.isDir() && n.watch != 0,
		!st.isDir() && st.Nlink == 1 && len(n.links) == 1 && n.links[0].parent.watch != 0:
		return longValid
	}
	return shortValid
}

// own gives what was just made to the configured user, with exactly this mode: the process's umask has no say. It returns
// what it is then.
func (s *Server) own(f file, st stat, mode uint32) (stat, error) {
	changed := false
	if s.euid == 0 && (int(st.Uid) != s.config.UID || int(st.Gid) != s.config.GID) {
		if err := unix.Fchownat(f.fd, "", s.config.UID, s.config.GID, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return st, err
		}
		changed = true
	}
	if st.isDir() {
		mode |= uint32(st.Mode) & unix.S_ISGID // inherited: the owner of the directory wants it so
	}
	if st.kind() != unix.S_IFLNK && uint32(st.Mode)&0o7777 != mode {
		if err := unix.Chmod(f.proc(), mode); err != nil {
			return st, err
		}
		changed = true
	}
	if !changed {
		return st, nil
	}
	return statFD(f.fd)
}

// strip takes setuid and setgid from a file of the host that the guest has changed.
func strip(f file, st *stat) {
	if st.isDir() || st.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return
	}
	if unix.Chmod(f.proc(), uint32(st.Mode)&0o1777) == nil {
		if now, err := statFD(f.fd); err == nil {
			*st = now
		}
	}
}
