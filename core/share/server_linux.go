package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// Server serves one directory to one guest, over one stream at a time.
type Server struct {
	config Config
	limits Quota
	log    *slog.Logger
	rootFD int
	euid   int

	table   *table
	handles handles
	quota   *quota // nil without a bound
	watcher *watcher
	invals  *invals
	buffers *buffers

	// gate is held for reading by every request, for writing by who needs them all to be finished.
	gate sync.RWMutex
	// tree is held for reading by what walks paths, for writing by renames: else a path could be half old, half new.
	tree sync.RWMutex

	mount   mount
	session sessions

	// waiting are those that wait for the gate.
	waiting sync.WaitGroup

	requests, sent, repeated atomic.Uint64
	// noCreditUntil is until when no writes are taken for done, in nanoseconds since 1970, lateFailures how often one of those has failed.
	noCreditUntil atomic.Int64
	lateFailures  atomic.Int64
	ctx           context.Context //nolint:containedctx // ends the goroutines; Close cancels it
	cancel        context.CancelFunc
	closed        sync.Once
}

// mount is what belongs to one mount in the guest. It changes only under the gate.
type mount struct {
	mu      sync.Mutex
	nonce   [wire.MountSize]byte
	known   bool
	init    *wire.Init
	forgets uint64
	replies replies
}

// New opens the directory and, with State, what the guest had open in it.
func New(config Config) (*Server, error) {
	s := &Server{config: config, limits: config.Quota.withDefaults(), log: config.Log, euid: unix.Geteuid(), rootFD: -1}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("share", config.Tag)
	s.ctx, s.cancel = context.WithCancel(context.Background()) //nolint:forbidigo // a server lives until Close
	if err := s.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("share %s: %w", config.Root, err), s.Close())
	}
	return s, nil
}

func (s *Server) start() error {
	// A link in the path may be the work of another guest, which shares a directory above.
	fd, err := unix.Openat2(unix.AT_FDCWD, s.config.Root, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return err
	}
	s.rootFD = fd
	probe, err := openHow(fd, ".", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("%w: openat2: %w", ErrUnsupported, err)
	}
	probe.close()
	st, err := statFD(fd)
	if err != nil {
		return err
	}
	s.table = newTable(s.limits.Nodes, st)
	s.handles = handles{byID: map[uint64]*handle{}, limit: handleLimit(s.limits.Handles)}
	s.buffers = newBuffers(s.limits.InFlight)
	s.invals = newInvals()
	if s.limits.Bytes > 0 {
		if s.quota, err = newQuota(fd, s.limits.Bytes); err != nil {
			return err
		}
	}
	s.watcher = newWatcher(s)
	s.table.gone = s.forgotten
	if s.config.State != nil {
		if err := s.restore(s.config.State); err != nil {
			return err
		}
	}
	s.watcher.start()
	return nil
}

// handleLimit leaves the process some files for itself.
func handleLimit(want int) int {
	const own = 256
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil && lim.Cur < uint64(want)+own { //nolint:gosec // positive by withDefaults
		return max(16, int(lim.Cur)-own) //nolint:gosec // less than want
	}
	return want
}

// Close ends a session that is under way, closes every file and stops watching. Files stay as they are.
func (s *Server) Close() error {
	s.closed.Do(func() {
		s.cancel()
		s.session.end()
		s.waiting.Wait()
		if s.watcher != nil {
			s.watcher.stop()
		}
		s.handles.mu.Lock()
		open := s.handles.byID
		s.handles.byID = map[uint64]*handle{}
		s.handles.mu.Unlock()
		for _, h := range open {
			s.shut(h)
		}
		if s.rootFD >= 0 {
			_ = unix.Close(s.rootFD)
		}
	})
	return nil
}

// Sync writes everything in the directory's file system to the disk.
func (s *Server) Sync() error {
	f, err := openHow(s.rootFD, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("sync shared directory: %w", err)
	}
	defer f.close()
	if err := unix.Syncfs(f.fd); err != nil {
		return fmt.Errorf("sync shared directory: %w", err)
	}
	return nil
}

// Stats says what is in use.
func (s *Server) Stats() Stats {
	s.handles.mu.Lock()
	open := len(s.handles.byID)
	s.handles.mu.Unlock()
	used, _ := s.quota.state()
	return Stats{
		Nodes: s.table.size(), Handles: open, Watches: s.watcher.count(), Bytes: used,
		Requests: s.requests.Load(), Invalidations: s.sent.Load(), Repeated: s.repeated.Load(),
	}
}

// begin prepares for a session: a mount that is not the one of before has nothing of it. It returns how many messages that
// forget were carried out for this mount, and whether it is a new one.
func (s *Server) begin(hello wire.Hello) (forgets uint64, fresh bool) {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.mount.known && bytes.Equal(s.mount.nonce[:], hello.Mount) {
		return s.mount.forgets, false
	}
	s.reset()
	s.mount.known = true
	copy(s.mount.nonce[:], hello.Mount)
	return 0, true
}

// reset forgets a mount. The gate is held.
func (s *Server) reset() {
	s.handles.mu.Lock()
	open := s.handles.byID
	s.handles.byID = map[uint64]*handle{}
	s.handles.mu.Unlock()
	for _, h := range open {
		s.shut(h)
	}
	for _, n := range s.table.all() {
		s.table.forget(n.id, n.lookups)
	}
	s.invals.clear()
	s.table.mu.Lock()
	s.table.absent.clear()
	s.table.mu.Unlock()
	s.mount.init, s.mount.known, s.mount.forgets, s.mount.replies = nil, false, 0, replies{}
}

// forgotten is called by the table, under its lock, when the guest does not know a node any more.
func (s *Server) forgotten(n *node) {
	if n.watch != 0 {
		s.watcher.remove(n)
	}
	s.invals.forget(n.id)
}

// emit reports a change by the guest.
func (s *Server) emit(e Event) {
	if s.config.Events != nil {
		s.config.Events(e)
	}
}
