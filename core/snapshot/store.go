// Package snapshot keeps snapshots of a VM's workspace and brings files back from them. The workspace is live: a hostile guest and its owner
// change it meanwhile. So nothing in it is reached by a path that could lead out, no file is trusted to stay what it was, and files are only
// ever replaced by a rename, never written to.
//
// A store is a directory that the guest never sees:
//
//	objects/<2 hex>/<hash>  contents, each once        manifests/cp-N  what a snapshot holds: names, modes, hashes
//	tmp/                    what is being written      revert/, journal  a revert that has begun
//	damaged/                what was moved aside       lock            the process that has it open
//
// All that a snapshot needs is on the disk before its manifest gets its name, so a crash leaves each snapshot whole or absent.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
	"capsem/core/guard"
)

// Limits of a store.
const (
	DefaultAutoMax, DefaultManualMax = 10, 12
	MinPool, MaxPool                 = 1, 50
	// DefaultQuota bounds what the stored contents take.
	DefaultQuota = 32 << 30
	// revertMax is how many reverts can be undone.
	revertMax = 5
)

// Options say which workspace a store is for. Dir must be on the same file system.
type Options struct {
	Workspace, Dir string
	// AutoMax and ManualMax are the sizes of the pools, 0 for the default.
	AutoMax, ManualMax int
	// Quota bounds the bytes of all stored contents, 0 for the default.
	Quota int64
	// Clock is time.Now if nil.
	Clock func() time.Time
	Log   *slog.Logger
	// Made is told of every snapshot that was made; nil for nobody. It must not block.
	Made func(Made)
	// Missed is told why an automatic one is not taken, once for each reason; nil for nobody. It must not block.
	Missed func(why string)
	// before is told each step that changes the disk before it is done.
	before func(step string)
	// during is told what a revert or scan is about to do in the workspace, so that a test can be faster.
	during func(step, path string)
	// readers is how many files are read at the same time.
	readers int
	// weight is maxWeight but in tests.
	weight int64
}

// Store is the open snapshots of one workspace. Its methods may be called at the same time; those that change something wait for each other.
type Store struct {
	opts      Options
	lock      *guard.Lock
	root      int // the workspace
	dirs      dirs
	objects   *objects
	work      chan struct{} // holds a token while nobody works
	readers   sync.RWMutex  // held for reading by those that do not wait for who works, so that Close does for them
	counts    counters
	scheduled atomic.Bool

	// pending says that a revert is to be carried on.
	pending bool
	// base is the last look at the workspace; only who works uses it.
	base *manifest

	mu      sync.Mutex
	closed  bool
	table   []header // oldest first
	pins    map[int]int
	damaged map[string]string
	// missed is why the last automatic snapshot was not taken.
	missed string
	cache  cache
}

// dirs are the open directories of a store: its own path may change while it is open.
type dirs struct{ store, manifests, objects, temp, revert, damaged int }

// counters count what was done, for tests.
type counters struct{ read, walks atomic.Int64 }

// Open opens a store, and makes it if need be. It finishes a revert that was cut off, and removes what a crash left. One process at a time can
// have it open.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, explain("open snapshots", err)
	}
	lock, err := guard.Acquire(filepath.Join(opts.Dir, "lock"))
	if errors.Is(err, guard.ErrHeld) {
		return nil, fault.Wrap(err, fault.Conflict, "another process has the snapshots in %s open", opts.Dir)
	}
	if err != nil {
		return nil, explain("open snapshots", err)
	}
	s := &Store{
		opts: opts, lock: lock, root: -1, work: make(chan struct{}, 1), pins: map[int]int{}, damaged: map[string]string{},
		dirs: dirs{-1, -1, -1, -1, -1, -1},
	}
	if err := s.load(ctx); err != nil {
		return nil, errors.Join(explain("open snapshots", err), s.release())
	}
	s.work <- struct{}{}
	return s, nil
}

func (o *Options) complete() error {
	for _, pool := range []*int{&o.AutoMax, &o.ManualMax} {
		if *pool != 0 && (*pool < MinPool || *pool > MaxPool) {
			return fault.New(fault.OutOfRange, "%d snapshots is outside %d-%d", *pool, MinPool, MaxPool)
		}
	}
	if o.AutoMax == 0 {
		o.AutoMax = DefaultAutoMax
	}
	if o.ManualMax == 0 {
		o.ManualMax = DefaultManualMax
	}
	if o.Quota == 0 {
		o.Quota = DefaultQuota
	}
	if o.Quota < 0 {
		return fault.New(fault.OutOfRange, "a quota of %d bytes is less than nothing", o.Quota)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.before == nil {
		o.before = func(string) {}
	}
	if o.weight == 0 {
		o.weight = maxWeight
	}
	if o.readers == 0 {
		o.readers = min(maxReaders, runtime.GOMAXPROCS(0))
	}
	if o.during == nil {
		o.during = func(string, string) {}
	}
	return nil
}

func (s *Store) load(ctx context.Context) error {
	if err := s.openDirs(); err != nil {
		return err
	}
	s.objects = &objects{
		dir: s.dirs.objects, temp: s.dirs.temp, damaged: s.dirs.damaged, before: s.opts.before, limit: s.opts.Quota,
		known: map[hash]*object{}, dirs: map[string]bool{},
	}
	if err := empty(s.dirs.temp); err != nil {
		return err
	}
	if err := s.objects.load(); err != nil {
		return err
	}
	if err := s.loadManifests(); err != nil {
		return err
	}
	if err := s.recoverRevert(ctx); err != nil {
		return err
	}
	return s.objects.collect()
}

func (s *Store) openDirs() error {
	for _, d := range []struct {
		name string
		fd   *int
	}{{"manifests", &s.dirs.manifests}, {"objects", &s.dirs.objects}, {"tmp", &s.dirs.temp}, {"revert", &s.dirs.revert}, {"damaged", &s.dirs.damaged}} {
		path := filepath.Join(s.opts.Dir, d.name)
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err //nolint:wrapcheck // names the file
		}
		if err := openDir(path, d.fd); err != nil {
			return err
		}
	}
	if err := errors.Join(openDir(s.opts.Dir, &s.dirs.store), openDir(s.opts.Workspace, &s.root)); err != nil {
		return err
	}
	a, err := statFD(s.root)
	b, err2 := statFD(s.dirs.store)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if a.dev != b.dev {
		return fault.New(fault.Invalid, "the snapshots in %s are not on the file system of their workspace", s.opts.Dir)
	}
	return nil
}

func openDir(path string, fd *int) error {
	err := retry(func() (err error) { *fd, err = unix.Open(path, dirFlags|unix.O_CLOEXEC, 0); return err })
	if err != nil {
		*fd = -1
		return fmt.Errorf("open %s: %w", path, err)
	}
	return nil
}

// Close waits for who works, and lets go of the store.
func (s *Store) Close() error {
	<-s.work
	s.readers.Lock()
	defer s.readers.Unlock()
	s.mu.Lock()
	done := s.closed
	s.closed = true
	s.mu.Unlock()
	defer func() { s.work <- struct{}{} }()
	if done {
		return nil
	}
	return s.release()
}

func (s *Store) release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range []int{s.root, s.dirs.store, s.dirs.manifests, s.dirs.objects, s.dirs.temp, s.dirs.revert, s.dirs.damaged} {
		closeOther(fd, -1)
	}
	if err := s.lock.Release(); err != nil {
		return fmt.Errorf("close snapshots: %w", err)
	}
	return nil
}

// begin waits until nobody else works. Whoever called it calls end.
func (s *Store) begin(ctx context.Context) error {
	select {
	case <-s.work:
	case <-ctx.Done():
		return fmt.Errorf("wait for other work on the snapshots: %w", context.Cause(ctx))
	}
	if s.isClosed() {
		s.end()
		return fault.New(fault.Unavailable, "the snapshots are closed")
	}
	if s.pending {
		if err := s.recoverRevert(ctx); err != nil {
			s.end()
			return explain("carry on a revert", err)
		}
		s.pending = false
	}
	return nil
}

func (s *Store) end() { s.work <- struct{}{} }

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// explain makes a full disk a fault of its own.
func explain(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return fmt.Errorf("%s: %w", op, err)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fault.Wrap(err, fault.NoSpace, "no space left to %s", op).WithHint("free some space on that disk and try again")
	}
	if errors.Is(err, unix.EROFS) {
		return fault.Wrap(err, fault.Unavailable, "cannot %s: the disk is read-only", op).WithHint("make that disk writable and try again")
	}
	return fmt.Errorf("%s: %w", op, err)
}
