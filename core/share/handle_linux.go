package share

import (
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// handle is a file or directory that the guest has open.
type handle struct {
	id    uint64
	node  *node
	flags int
	dir   bool
	pid   uint32
	dirty atomic.Bool

	// users are those that use the descriptor. Nobody waits to become one, whatever locks he holds: what is being closed is stale.
	users  sync.WaitGroup
	mu     sync.Mutex
	closed bool
	f      file
	// dirMu guards the position of a directory, and pos says where it is.
	dirMu sync.Mutex
	pos   int64
}

// use lends the descriptor until done is called. A handle that could not be restored is stale.
func (h *handle) use() (fd int, done func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f.fd < 0 || h.closed {
		return -1, nil, unix.ESTALE
	}
	h.users.Add(1)
	return h.f.fd, h.users.Done, nil
}

func (h *handle) dup() (file, error) {
	fd, done, err := h.use()
	if err != nil {
		return file{fd: -1}, err
	}
	defer done()
	out, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return file{fd: out}, err
}

func (h *handle) writable() bool { return h.flags&unix.O_ACCMODE != unix.O_RDONLY }

// handles is what the guest has open, by number.
type handles struct {
	mu    sync.Mutex
	byID  map[uint64]*handle
	next  uint64
	limit int
}

// room says beforehand whether another handle is allowed, so that nothing is made in vain.
func (t *handles) room() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byID) >= t.limit {
		return unix.EMFILE
	}
	return nil
}

// addHandle gives a file a number; it closes f if it cannot.
func (s *Server) addHandle(n *node, f file, flags int, dir bool, pid uint32) (*handle, error) {
	h := &handle{node: n, f: f, flags: flags & keptFlags, dir: dir, pid: pid}
	s.handles.mu.Lock()
	if len(s.handles.byID) >= s.handles.limit {
		s.handles.mu.Unlock()
		f.close()
		return nil, unix.EMFILE
	}
	s.handles.next++
	h.id = s.handles.next
	s.handles.byID[h.id] = h
	s.handles.mu.Unlock()
	s.table.mu.Lock()
	n.open = append(n.open, h)
	s.table.mu.Unlock()
	return h, nil
}

// handle finds a handle that the guest names, of the node and the kind that it says.
func (s *Server) handle(id, node uint64, dir bool) (*handle, error) {
	s.handles.mu.Lock()
	defer s.handles.mu.Unlock()
	h := s.handles.byID[id]
	if h == nil || h.dir != dir || h.node.id != node {
		return nil, unix.EBADF
	}
	return h, nil
}

// dropHandle takes a handle away; the caller closes it.
func (s *Server) dropHandle(id, node uint64, dir bool) *handle {
	h, err := s.handle(id, node, dir)
	if err != nil {
		return nil
	}
	s.handles.mu.Lock()
	known := s.handles.byID[id] == h
	delete(s.handles.byID, id)
	s.handles.mu.Unlock()
	if !known {
		return nil
	}
	return h
}

// shut closes a handle that was dropped, once nothing uses it.
func (s *Server) shut(h *handle) {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.users.Wait()
	f := h.f
	if s.quota != nil && !h.dir && f.fd >= 0 && (h.writable() || !s.table.named(h.node)) {
		s.settleClosed(h.node, f)
	}
	f.close()
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	if i := slices.Index(h.node.open, h); i >= 0 {
		h.node.open = slices.Delete(h.node.open, i, i+1)
	}
	s.table.release(h.node)
}
