package share

import "time"

// maxAbsent is how many names that do not exist the guest may cache for long: each is remembered, so that it can be told when one is
// made on the host.
const maxAbsent = 32 << 10

// absences are those names, oldest first. They belong to the table's lock. A name that is made is taken out of the set, and leaves the
// queue when it is its turn.
type absences struct {
	queue []link
	in    map[link]bool
}

// absent remembers that a name does not exist and returns for how long the guest may cache that. The tree is locked, so that the name
// is remembered before an event of its making is looked at.
func (s *Server) absent(parent *node, name string) time.Duration {
	t := s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	at := link{parent, name}
	switch {
	case parent.watch == 0 || t.byID[parent.id] != parent:
		return shortValid
	case t.absent.in[at]:
		return longValid
	case len(t.absent.queue) >= maxAbsent:
		oldest := t.absent.queue[0]
		if t.absent.in[oldest] && !s.unlearn(oldest, maxInvals) {
			return shortValid
		}
		t.absent.queue = t.absent.queue[1:]
	}
	t.absent.add(at)
	return longValid
}

func (a *absences) add(at link) {
	if a.in == nil {
		a.in = map[link]bool{}
	}
	a.in[at] = true
	a.queue = append(a.queue, at)
}

// unlearn has the guest look a name up anew that did not exist, unless more than a limit of names wait for that. The table is locked.
func (s *Server) unlearn(at link, limit int) bool {
	if s.table.byID[at.parent.id] == at.parent && !s.invals.add(inval{at.parent.id, at.name}, limit) {
		return false
	}
	delete(s.table.absent.in, at)
	return true
}

// sweepAbsent compares what the guest may believe not to exist, after events were lost.
func (s *Server) sweepAbsent() {
	s.table.mu.Lock()
	all := make([]link, 0, len(s.table.absent.in))
	for at := range s.table.absent.in {
		all = append(all, at)
	}
	s.table.mu.Unlock()
	for _, at := range all {
		if s.ctx.Err() != nil {
			return
		}
		s.compareAbsent(at)
	}
}

func (s *Server) compareAbsent(at link) {
	s.tree.RLock()
	defer s.tree.RUnlock()
	there := true
	if dir, _, err := s.place(at.parent); err == nil {
		s.watcher.ensure(at.parent, dir)
		_, err = statAt(dir.fd, at.name)
		there = err == nil
		dir.close()
	}
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	if s.table.absent.in[at] && (there || at.parent.watch == 0) {
		s.unlearn(at, maxInvals+maxAbsent)
	}
}

// clear forgets all of a mount that ended.
func (a *absences) clear() { a.queue, a.in = nil, nil }
