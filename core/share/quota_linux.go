package share

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// inodeCost is what a file counts for besides its blocks: empty files are not free.
	inodeCost = 512
	// unknown is what a node is charged of that was restored.
	unknown = -1
	// pastSlack is what the sum may go beyond the limit: what is made is reserved before its real cost is known.
	pastSlack = 16 << 20
	// recountEvery limits how often a full directory is counted anew.
	recountEvery = 5 * time.Second
)

// quota is the bound on what the directory holds. The sum follows what the guest does; what others do in it is noticed by
// counting anew before something is refused.
type quota struct {
	mu    sync.Mutex
	limit int64
	used  int64
	// held is the part of the sum that no file has yet for which it was reserved.
	held    int64
	counted time.Time
	root    int
}

func newQuota(root int, limit int64) (*quota, error) {
	c, err := usage(root, true)
	if err != nil {
		return nil, err
	}
	return &quota{limit: limit, used: c.sum, counted: time.Now(), root: root}, nil
}

// reserve takes n bytes for something about to be made; give them back with add(-n) when its real cost is known.
func (q *quota) reserve(n int64) error {
	if q == nil || n <= 0 {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if n > q.limit-q.used && time.Since(q.counted) > recountEvery {
		q.counted = time.Now()
		before := q.used
		if c, err := usage(q.root, false); err == nil {
			q.used = c.sum + q.held
			if c.hidden { // what the guest hides is not given back
				q.used = max(q.used, before)
			}
		}
	}
	if n > q.limit-q.used {
		return unix.EDQUOT
	}
	q.used += n
	return nil
}

// Hold takes n bytes of the quota for what somebody else is about to put into the directory for the guest.
func (s *Server) Hold(n int64) error {
	if err := s.quota.reserve(n); err != nil || s.quota == nil || n <= 0 {
		return err
	}
	s.quota.mu.Lock()
	s.quota.held += n
	s.quota.mu.Unlock()
	return nil
}

// Release ends that Hold has taken n bytes: kept says that they are in use now.
func (s *Server) Release(n int64, kept bool) {
	if s.quota == nil {
		return
	}
	s.quota.mu.Lock()
	s.quota.held -= n
	s.quota.mu.Unlock()
	if !kept {
		s.quota.add(-n)
	}
}

// ample reserves n bytes if they are no more than a small part of what is free.
func (q *quota) ample(n int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n > (q.limit-q.used)/16 {
		return false
	}
	q.used += n
	return true
}

// past reports whether there is clearly more than may be.
func (q *quota) past() bool {
	used, limit := q.state()
	return used > limit+pastSlack
}

func (q *quota) add(n int64) {
	if q == nil || n == 0 {
		return
	}
	q.mu.Lock()
	q.used = max(0, q.used+n)
	q.mu.Unlock()
}

func (q *quota) state() (used, limit int64) {
	if q == nil {
		return 0, 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used, q.limit
}

// settle notes the outcome of a change by the guest: what is seen now is no edit by others. n.mu is held.
func (s *Server) settle(n *node, st *stat) {
	n.seen = seenOf(st)
	s.charge(n, st)
}

// grown counts what a directory takes with a name more, which it keeps when the name goes.
func (s *Server) grown(dir *node, at file) {
	if s.quota == nil {
		return
	}
	dir.mu.Lock()
	defer dir.mu.Unlock()
	if st, err := statFD(at.fd); err == nil {
		s.charge(dir, &st)
	}
}

// base notes what a file that was restored costs before it is changed. n.mu is held.
func (s *Server) base(n *node, st *stat) {
	if s.quota != nil && n.charged == unknown {
		s.charge(n, st)
	}
}

// baseFD is base of an open file.
func (s *Server) baseFD(n *node, fd int) {
	if s.quota == nil || n.charged != unknown {
		return
	}
	if st, err := statFD(fd); err == nil {
		s.charge(n, &st)
	}
}

// charge counts what a file costs now. n.mu is held.
func (s *Server) charge(n *node, st *stat) {
	if s.quota == nil {
		return
	}
	cost := st.cost()
	if st.Nlink == 0 {
		cost = int64(st.Blocks) * 512 //nolint:gosec // the kernel's count of blocks
	}
	if n.charged != unknown {
		s.quota.add(cost - n.charged)
	}
	n.charged = cost
}

// uncharge counts a file no more. n.mu is held.
func (s *Server) uncharge(n *node) {
	if n.charged != unknown {
		s.quota.add(-n.charged)
	}
	n.charged = 0
}

// settleClosed counts a file no more that had no name and was open for the last time.
func (s *Server) settleClosed(n *node, f file) {
	st, err := statFD(f.fd)
	if err != nil {
		return
	}
	s.table.mu.Lock()
	last := len(n.open) <= 1
	s.table.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if st.Nlink == 0 && last {
		s.uncharge(n)
		return
	}
	s.charge(n, &st)
}
