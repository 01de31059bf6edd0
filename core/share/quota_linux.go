package share

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// inodeCost is what a file counts for besides its blocks: empty files are not free.
	inodeCost = 512
	// unknown is what a node is charged of that was restored.
	unknown = -1
	// recountEvery limits how often a full directory is counted anew.
	recountEvery = 5 * time.Second
	// maxCounted ends the count of a directory with more files than anybody keeps.
	maxCounted = 20 << 20
)

// quota is the bound on what the directory holds. The sum follows what the guest does; what others do in it is noticed by
// counting anew before something is refused.
type quota struct {
	mu      sync.Mutex
	limit   int64
	used    int64
	counted time.Time
	root    string
}

func newQuota(root string, limit int64) (*quota, error) {
	used, err := usage(root)
	if err != nil {
		return nil, err
	}
	return &quota{limit: limit, used: used, counted: time.Now(), root: root}, nil
}

// usage counts a directory. root is a path through a descriptor, so that it is the directory that is open; links are not
// followed.
func usage(root string) (int64, error) {
	var sum int64
	linked := map[identity]bool{}
	count := 0
	err := filepath.WalkDir(root+"/.", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				return nil
			}
			return err
		}
		if count++; count > maxCounted {
			return unix.EFBIG
		}
		st, err := statAt(unix.AT_FDCWD, path)
		if err != nil {
			return nil //nolint:nilerr // it went away meanwhile
		}
		if st.Nlink > 1 && !st.isDir() {
			if linked[st.identity()] {
				return nil
			}
			linked[st.identity()] = true
		}
		if path != root+"/." && st.isDir() && st.mounted() {
			return filepath.SkipDir
		}
		sum += st.cost()
		return nil
	})
	if err != nil {
		return 0, &os.PathError{Op: "count", Path: root, Err: err}
	}
	return sum, nil
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
		if used, err := usage(q.root); err == nil {
			q.used = used
		}
	}
	if n > q.limit-q.used {
		return unix.EDQUOT
	}
	q.used += n
	return nil
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
