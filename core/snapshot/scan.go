package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
)

const (
	// coarse is more than the clock of any file system goes in one step: a file changed less than that ago may change once more and look
	// the same.
	coarse = 100 * time.Millisecond
	// maxReaders bounds how many files are read at the same time.
	maxReaders = 4
	// maxTries bounds how often a file is read that changes meanwhile.
	maxTries = 3
	// batch is how many names are taken from a directory at once.
	batch = 4096
)

// scanner looks at the whole workspace.
type scanner struct {
	s     *Store
	ctx   context.Context //nolint:containedctx // lives as long as one call
	root  int
	store bool
	base  *manifest
	// named is the path in base of one that was found; "" for none.
	named func(path string) string
	// moved says that what is looked at was renamed since base, which changes the ctime.
	moved bool
	out   manifest
	// weight is what the names, targets and attributes take that were found.
	weight atomic.Int64
	read   []int // the entries whose content is not known
	gone   []bool
}

// scan finds out what is in the workspace now. Files that look as they did last time are not read again. With store their contents
// are stored, which becomes durable with the next sync.
func (s *Store) scan(ctx context.Context, store bool) (*manifest, error) {
	s.counts.walks.Add(1)
	sc := &scanner{s: s, ctx: ctx, root: s.root, store: store, base: s.lastLook(), named: func(path string) string { return path }}
	if err := sc.run(); err != nil {
		return nil, err
	}
	sc.out.finish()
	s.base = &sc.out
	return &sc.out, nil
}

// run looks at everything below the root.
func (sc *scanner) run() error {
	if err := sc.walk(); err != nil {
		return err
	}
	if err := sc.readAll(); err != nil {
		return err
	}
	kept := sc.out.entries[:0]
	for i := range sc.out.entries {
		if !sc.gone[i] {
			kept = append(kept, sc.out.entries[i])
		}
	}
	sc.out.entries = kept
	return nil
}

// was is what was last known of a path.
func (sc *scanner) was(path string) *entry { return sc.base.find(sc.named(path)) }

// lastLook is what the workspace was known to be last.
func (s *Store) lastLook() *manifest {
	if s.base == nil {
		if h, ok := s.newest(""); ok {
			if m, err := s.manifest(h); err == nil {
				s.base = m
			}
		}
	}
	return s.base
}

func (sc *scanner) walk() error {
	st, err := statFD(sc.root)
	if err != nil {
		return fmt.Errorf("look at workspace: %w", err)
	}
	if st.nlink == 0 {
		return fault.New(fault.Unavailable, "the workspace directory was removed").WithHint("start the VM again to get a new one")
	}
	todo := []int{-1}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		from := len(sc.out.entries)
		if err := sc.dir(at); err != nil {
			return err
		}
		for i := from; i < len(sc.out.entries); i++ {
			if sc.out.entries[i].kind == kindDir {
				todo = append(todo, i)
			}
		}
	}
	sc.gone = make([]bool, len(sc.out.entries))
	return nil
}

// dir looks at one directory: the entry with that index, or the workspace itself.
func (sc *scanner) dir(at int) error {
	path := ""
	if at >= 0 {
		path = sc.out.entries[at].path
	}
	sc.s.opts.during("look", path)
	f, st, err := openIn(sc.root, path, dirFlags)
	if err != nil {
		if at >= 0 && (gone(err) || denied(err)) {
			sc.out.Skipped++ // it stays as an empty directory
			return nil
		}
		return fmt.Errorf("look at workspace: %w", err)
	}
	defer f.Close()
	if at >= 0 {
		e := &sc.out.entries[at]
		if was := sc.was(path); was != nil && was.untouched(&st) {
			e.xattrs = was.xattrs
		} else {
			e.xattrs = readXattrs(int(f.Fd()))
		}
		if err := sc.weigh(e, 0); err != nil {
			return err
		}
	}
	if st.mode&0o100 == 0 && os.Geteuid() != 0 && unix.Fchmod(int(f.Fd()), st.mode|0o700) == nil {
		defer func() { _ = unix.Fchmod(int(f.Fd()), st.mode) }() // what is in it could not be looked at
	}
	return sc.names(f, path)
}

// names looks at all names in a directory.
func (sc *scanner) names(f *os.File, path string) error {
	for {
		if err := sc.ctx.Err(); err != nil {
			return fmt.Errorf("look at workspace: %w", context.Cause(sc.ctx))
		}
		names, err := f.Readdirnames(batch)
		for _, name := range names {
			if err := sc.name(f, path, name); err != nil {
				return err
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) || gone(err) {
				return nil
			}
			return fmt.Errorf("look at workspace: %w", err)
		}
	}
}

// name looks at one name in a directory.
func (sc *scanner) name(dir *os.File, in, name string) error {
	path := join(in, name)
	st, err := statAt(int(dir.Fd()), name)
	if gone(err) {
		return nil
	}
	if err != nil {
		if denied(err) {
			sc.out.Skipped++
			return nil
		}
		return fmt.Errorf("look at %s: %w", shown(path), err)
	}
	if st.kind == 0 || !validPath(path) {
		sc.out.Skipped++
		return nil
	}
	if len(sc.out.entries) >= maxEntries {
		return fault.New(fault.LimitReached, "the workspace has more than %d files, too many for a snapshot", maxEntries)
	}
	e := st.describe(path)
	was := sc.was(path)
	if sc.moved && was != nil && was.mode == st.mode {
		st.ctime = was.ctime
	}
	known := was != nil && was.untouched(&st)
	switch e.kind {
	case kindSymlink:
		if known {
			e.target = was.target
		} else if e.target, err = readlink(int(dir.Fd()), name); err != nil {
			return nil //nolint:nilerr // it is no symlink any more
		}
	case kindFile:
		if known && (!sc.store || sc.s.objects.has(was.hash)) {
			e.hash, e.xattrs = was.hash, was.xattrs
		} else {
			sc.read = append(sc.read, len(sc.out.entries))
		}
	case kindDir:
	}
	sc.out.entries = append(sc.out.entries, e)
	return sc.weigh(&e, len(path)+len(e.target))
}

// weigh bounds the memory that a look at a workspace takes, however long a guest makes its names.
func (sc *scanner) weigh(e *entry, more int) error {
	for _, x := range e.xattrs {
		more += len(x.name) + len(x.value)
	}
	if sc.weight.Add(int64(more)) > sc.s.opts.weight {
		return fault.New(fault.LimitReached, "the names of the files in the workspace take too much space for a snapshot")
	}
	return nil
}

// readAll reads the files whose content is not known, a few at a time.
func (sc *scanner) readAll() error {
	ctx, cancel := context.WithCancelCause(sc.ctx)
	defer cancel(nil)
	sc.ctx = ctx
	var wait sync.WaitGroup
	jobs := make(chan int)
	var mu sync.Mutex
	for range min(sc.s.opts.readers, len(sc.read)) {
		wait.Go(func() {
			for i := range jobs {
				left, err := sc.file(&sc.out.entries[i])
				if err != nil {
					cancel(err)
				}
				if left {
					mu.Lock()
					sc.gone[i] = true
					mu.Unlock()
				}
			}
		})
	}
	for _, i := range sc.read {
		select {
		case jobs <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(jobs)
	wait.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("read workspace: %w", context.Cause(ctx))
	}
	return nil
}

// file reads one file. left says that it is no longer there, or cannot be read.
func (sc *scanner) file(e *entry) (left bool, err error) {
	sc.s.opts.during("read", e.path)
	f, st, err := openIn(sc.root, e.path, readFlags)
	if err != nil {
		if gone(err) || denied(err) {
			return true, nil
		}
		return false, fmt.Errorf("read %s: %w", shown(e.path), err)
	}
	defer f.Close()
	for try := 1; ; try++ {
		if st.kind != kindFile {
			return true, nil
		}
		sc.s.counts.read.Add(1)
		_ = settle(int(f.Fd())) // where it cannot be done, times are all there is
		if st, err = statFD(int(f.Fd())); err != nil {
			return false, fmt.Errorf("read %s: %w", shown(e.path), err)
		}
		h, err := sc.content(f, e.path, st.size)
		if err != nil {
			return false, fmt.Errorf("read %s: %w", shown(e.path), err)
		}
		sc.s.opts.during("was read", e.path)
		after, err := statFD(int(f.Fd()))
		if err != nil {
			return false, fmt.Errorf("read %s: %w", shown(e.path), err)
		}
		*e = after.describe(e.path)
		e.hash, e.size, e.xattrs = h, st.size, readXattrs(int(f.Fd()))
		e.marks = 0
		if st.ino != after.ino || st.size != after.size || st.mtime != after.mtime || st.ctime != after.ctime {
			if e.marks = markTorn; try < maxTries {
				st = after
				continue
			}
		} else if time.Since(time.Unix(0, after.ctime)) < coarse {
			e.marks = markDoubt
		}
		return false, sc.weigh(e, 0)
	}
}

// content finds the hash of a file, and stores it if asked to.
func (sc *scanner) content(f *os.File, path string, size int64) (hash, error) {
	was := sc.was(path)
	if !sc.store || size <= smallFile || was != nil && was.size == size {
		// Reading twice is cheaper than writing what is stored already.
		h, err := transfer(sc.ctx, nil, f, size, nil)
		if err != nil || !sc.store || sc.s.objects.has(h) {
			return h, err
		}
	}
	return sc.s.objects.put(sc.ctx, f, size)
}
