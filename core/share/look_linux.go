package share

import (
	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// look compares a name with what the guest knows, and queues what it must be told.
func (w *watcher) look(ch change) []inval {
	s := w.s
	s.gate.RLock() // a mount that begins anew has nothing to be told
	defer s.gate.RUnlock()
	s.tree.Lock() // what the guest makes has an event before it has a node: wait for it
	defer s.tree.Unlock()
	s.table.mu.Lock()
	dir := w.nodes[ch.watch]
	s.table.mu.Unlock()
	if dir == nil {
		return nil
	}
	if ch.name == "" {
		return s.compareDir(dir)
	}
	f, _, err := s.place(dir)
	if err != nil {
		return nil // moved or gone: its own directory's watch tells
	}
	defer f.close()
	return s.compare(dir, f, ch.name)
}

// tell queues invalidations, and returns them.
func (s *Server) tell(all ...inval) []inval {
	for _, i := range all {
		s.invalidate(i)
	}
	return all
}

func (s *Server) compareDir(n *node) []inval {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, st, err := s.place(n)
	if err != nil {
		return nil
	}
	f.close()
	if !s.observe(n, &st) {
		return []inval{{node: n.id}}
	}
	return nil
}

// compare looks at one name. What the guest did itself is as it knows it, and is passed over.
func (s *Server) compare(dir *node, at file, name string) []inval {
	n := s.table.find(dir, name)
	st, err := statAt(at.fd, name)
	if err != nil {
		if n == nil {
			return nil // made and removed again
		}
		s.table.drop(dir, name)
		return s.tell(inval{dir.id, name}, inval{node: dir.id}, inval{node: n.id})
	}
	if n == nil || !n.is(&st) {
		s.table.drop(dir, name)
		if known := s.table.known(&st); known != nil { // moved here: open files and working directories go on
			s.table.relink(known, dir, name)
		}
		return s.tell(inval{dir.id, name}, inval{node: dir.id})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if seenOf(&st) == n.seen {
		return nil
	}
	if st, err = statAt(at.fd, name); err != nil || !n.is(&st) || s.observe(n, &st) {
		return nil
	}
	return []inval{{node: n.id}}
}

// known finds the node of a file by what it is.
func (t *table) known(st *stat) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[st.identity()]
	if n == nil || n.kind != st.kind() {
		return nil
	}
	return n
}

// sweep compares everything that the guest knows: events were lost, or the guest slept while the host went on.
func (w *watcher) sweep() []inval {
	w.s.gate.RLock()
	defer w.s.gate.RUnlock()
	var sent []inval
	for _, n := range w.s.table.all() {
		if w.s.ctx.Err() != nil {
			return nil
		}
		sent = append(sent, w.s.compareNode(n)...)
	}
	w.s.sweepAbsent()
	return sent
}

// compareNode compares one node at each of its names.
func (s *Server) compareNode(n *node) []inval {
	s.tree.RLock()
	defer s.tree.RUnlock()
	if n.id == wire.RootID {
		return s.tell(inval{node: n.id})
	}
	s.table.mu.Lock()
	links := append([]link(nil), n.links...)
	s.table.mu.Unlock()
	var sent []inval
	for _, at := range links {
		dir, _, err := s.place(at.parent)
		if err != nil {
			sent = append(sent, s.tell(inval{at.parent.id, at.name})...)
			continue
		}
		s.watcher.ensure(at.parent, dir)
		sent = append(sent, s.compare(at.parent, dir, at.name)...)
		dir.close()
	}
	if n.kind == unix.S_IFDIR {
		sent = append(sent, s.tell(inval{node: n.id})...) // its list of names may be cached
	}
	return sent
}

// Invalidate has the guest read a path anew, with the directory it is in: for changes that a caller knows of and inotify
// may not, like a tree put back from a snapshot. "" is everything.
func (s *Server) Invalidate(path string) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	for _, n := range s.table.all() {
		for _, p := range s.table.paths(n) {
			if path == "" || p == path || (len(p) > len(path) && p[:len(path)] == path && p[len(path)] == '/') {
				s.compareNode(n)
				s.invalidate(inval{node: n.id})
				break
			}
		}
	}
	s.sweepAbsent()
	s.tree.RLock()
	defer s.tree.RUnlock()
	s.invalidateName(path)
}

// invalidateName has a name looked up anew that may not have existed.
func (s *Server) invalidateName(path string) {
	if path == "" {
		return
	}
	dir, name := "", path
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			dir, name = path[:i], path[i+1:]
			break
		}
	}
	for _, n := range s.table.all() {
		if n.kind != unix.S_IFDIR {
			continue
		}
		for _, p := range s.table.paths(n) {
			if p == dir && wire.CheckName(name) == nil {
				s.tell(inval{n.id, name}, inval{node: n.id})
			}
		}
	}
}
