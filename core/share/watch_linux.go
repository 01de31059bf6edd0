package share

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	watchMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_MODIFY | unix.IN_CLOSE_WRITE |
		unix.IN_ATTRIB | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK
	// gather is for how long events are collected: what the guest does makes events too, and is noted by then.
	gather = 4 * time.Millisecond
	// again is when an invalidation is repeated: an answer that was under way may have been cached after the first.
	again = 100 * time.Millisecond
	// maxChanges bounds what is collected before it is looked at.
	maxChanges = 8192
)

// watcher notices what others do to the directories that the guest knows, by inotify, and has the guest told.
type watcher struct {
	s       *Server
	inotify *os.File // nil where inotify does not work
	fd      int
	limit   int
	once    sync.Once
	done    chan struct{}
	// nodes, by watch, belong to the table's lock.
	nodes map[int32]*node
	// sweepNow asks for every node to be compared with its file.
	sweepNow bool
	started  bool
}

func newWatcher(s *Server) *watcher {
	w := &watcher{s: s, limit: s.limits.Watches, done: make(chan struct{}), nodes: map[int32]*node{}}
	if remote(s.rootFD) {
		s.log.Warn("the shared directory is on a file system whose changes by others are not seen at once; the guest sees them within a second, contents when it opens a file")
		return w
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		s.log.Warn("changes of the shared directory by others are seen late: inotify does not work", "error", err)
		return w
	}
	w.fd, w.inotify = fd, os.NewFile(uintptr(fd), "inotify")
	return w
}

// remote reports whether files are changed where this kernel does not see it.
func remote(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return true
	}
	switch uint32(st.Type) { //nolint:gosec // magic numbers of 32 bits
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC,
		unix.V9FS_MAGIC, unix.AFS_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC, unix.CODA_SUPER_MAGIC:
		return true
	}
	return false
}

func (w *watcher) start() {
	w.started = true
	go w.run()
}

func (w *watcher) stop() {
	if w.inotify != nil {
		_ = w.inotify.SetReadDeadline(time.Unix(1, 0)) // run sees that the server is closed
	}
	if w.started {
		<-w.done
	}
	w.s.table.mu.Lock()
	defer w.s.table.mu.Unlock()
	if w.inotify != nil { // what is closed is not watched: no descriptor of somebody else's is used
		_ = w.inotify.Close()
		w.inotify, w.nodes = nil, map[int32]*node{}
	}
}

func (w *watcher) count() int {
	w.s.table.mu.Lock()
	defer w.s.table.mu.Unlock()
	return len(w.nodes)
}

// ensure watches a directory from before it is looked into, so that no change falls in between.
func (w *watcher) ensure(n *node, at file) {
	w.s.table.mu.Lock()
	defer w.s.table.mu.Unlock()
	if w.inotify == nil || n.watch != 0 || w.s.table.byID[n.id] != n {
		return
	}
	err := error(unix.ENOSPC)
	if len(w.nodes) < w.limit {
		var wd int
		if wd, err = unix.InotifyAddWatch(w.fd, at.proc(), watchMask); err == nil {
			n.watch = int32(wd) //nolint:gosec // inotify counts from 1
			w.nodes[n.watch] = n
			return
		}
	}
	if errors.Is(err, unix.ENOSPC) && w.limit > 0 {
		w.once.Do(func() {
			w.s.log.Warn("more directories are in use than can be watched for changes by others; in the others the guest sees them within a second, contents when it opens a file",
				"watched", len(w.nodes), "raise", "fs.inotify.max_user_watches")
		})
	}
}

// remove is called by the table, under its lock.
func (w *watcher) remove(n *node) {
	if w.nodes[n.watch] == n {
		delete(w.nodes, n.watch)
		_, _ = unix.InotifyRmWatch(w.fd, uint32(n.watch)) //nolint:gosec // inotify counts from 1
	}
	n.watch = 0
}

// change is a name in a directory to which something happened; without a name, the directory itself.
type change struct {
	watch int32
	name  string
}

func (w *watcher) run() {
	defer close(w.done)
	if w.sweepNow {
		w.sweep()
	}
	if w.inotify == nil {
		return
	}
	var repeat []inval
	var due time.Time
	buf := make([]byte, 64<<10)
	for w.s.ctx.Err() == nil {
		changes, overflow, err := w.collect(buf, due)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if !due.IsZero() && !time.Now().Before(due) {
			w.s.tell(repeat...)
			repeat, due = nil, time.Time{}
		}
		var sent []inval
		if overflow {
			sent = w.sweep()
		}
		for ch := range changes {
			sent = append(sent, w.look(ch)...)
		}
		if len(sent) > 0 && due.IsZero() {
			due = time.Now().Add(again)
		}
		repeat = append(repeat, sent[:min(len(sent), max(0, maxInvals-len(repeat)))]...)
	}
}

// collect waits for events until due, if that is set, and then reads more for as long as gather says.
func (w *watcher) collect(buf []byte, due time.Time) (map[change]struct{}, bool, error) {
	if err := w.deadline(due); err != nil {
		return nil, false, err
	}
	n, err := w.inotify.Read(buf)
	if err != nil {
		return nil, false, err
	}
	changes := map[change]struct{}{}
	overflow := parseEvents(buf[:n], changes)
	if err := w.deadline(time.Now().Add(gather)); err != nil {
		return nil, false, err
	}
	for len(changes) < maxChanges {
		n, err := w.inotify.Read(buf)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			return nil, false, err
		}
		overflow = parseEvents(buf[:n], changes) || overflow
	}
	return changes, overflow, nil
}

// deadline ends the next read at a time. A stop meanwhile is not overwritten.
func (w *watcher) deadline(at time.Time) error {
	if err := w.inotify.SetReadDeadline(at); err != nil {
		return err
	}
	if w.s.ctx.Err() != nil {
		return w.inotify.SetReadDeadline(time.Unix(1, 0))
	}
	return nil
}

// parseEvents decodes what inotify says, and reports whether it lost some.
func parseEvents(b []byte, into map[change]struct{}) (overflow bool) {
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b)) //nolint:gosec // its bits
		mask := binary.NativeEndian.Uint32(b[4:])
		size := int(binary.NativeEndian.Uint32(b[12:]))
		if size > len(b)-unix.SizeofInotifyEvent {
			return overflow
		}
		name := b[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+size]
		b = b[unix.SizeofInotifyEvent+size:]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			overflow = true
		case mask&unix.IN_IGNORED == 0:
			into[change{wd, string(name)}] = struct{}{}
		}
	}
	return overflow
}
