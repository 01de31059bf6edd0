package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Mirror copies a workspace in passes: the first while its VM runs, the second, which copies only what has changed since, while the VM
// stands still.
type Mirror struct {
	from, to string
	seen     map[string]stamp
}

// stamp tells whether a file is as it was when it was copied. A change of a file always changes its ctime.
type stamp struct {
	ino, size uint64
	ctime     int64
	mode      fs.FileMode
}

// coarse is more than the clock of any file system goes in one step.
const coarse = 100 * time.Millisecond

// NewMirror copies the workspace of one directory of a VM or image to another, which has none.
func NewMirror(from, to string) *Mirror {
	return &Mirror{from: filepath.Join(from, workspace), to: filepath.Join(to, workspace), seen: map[string]stamp{}}
}

// Pass makes the copy what the workspace is now.
func (m *Mirror) Pass() error {
	info, err := os.Lstat(m.from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = m.dir("", info, 0)
	}
	if err != nil {
		return fmt.Errorf("copy workspace: %w", err)
	}
	return nil
}

func (m *Mirror) dir(rel string, info fs.FileInfo, depth int) error {
	from, to := filepath.Join(m.from, rel), filepath.Join(m.to, rel)
	if depth > maxDepth {
		return fmt.Errorf("%.200s...: too deep", from)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		if !errors.Is(err, fs.ErrExist) {
			return err //nolint:wrapcheck // names the file
		}
		if err := os.Chmod(to, 0o700); err != nil {
			return err //nolint:wrapcheck // as above
		}
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return gone(err)
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e.Name()] = true
		if err := m.entry(filepath.Join(rel, e.Name()), e, depth); err != nil {
			return err
		}
	}
	if err := m.prune(rel, there); err != nil {
		return err
	}
	return keepTimes(to, info)
}

// entry copies one entry unless it is as it was.
func (m *Mirror) entry(rel string, e fs.DirEntry, depth int) error {
	info, err := e.Info()
	if err != nil {
		return gone(err)
	}
	now, was := stampOf(info), m.seen[rel]
	to := filepath.Join(m.to, rel)
	if was.mode.Type() != now.mode.Type() || !info.IsDir() && was != now {
		if err := os.RemoveAll(to); err != nil {
			return err //nolint:wrapcheck // names the file
		}
	} else if !info.IsDir() {
		return nil
	}
	m.seen[rel] = now
	if time.Since(time.Unix(0, now.ctime)) < coarse {
		m.seen[rel] = stamp{mode: now.mode} // it may change once more and look the same
	}
	if info.IsDir() {
		return m.dir(rel, info, depth+1)
	}
	if err := copyEntry(filepath.Join(m.from, rel), to, info, depth); err != nil {
		delete(m.seen, rel)
		return gone(errors.Join(err, os.RemoveAll(to)))
	}
	return nil
}

// prune removes what is no longer there.
func (m *Mirror) prune(rel string, there map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(m.to, rel))
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	for _, e := range entries {
		if there[e.Name()] {
			continue
		}
		delete(m.seen, filepath.Join(rel, e.Name()))
		if err := os.RemoveAll(filepath.Join(m.to, rel, e.Name())); err != nil {
			return err //nolint:wrapcheck // names the file
		}
	}
	return nil
}

// gone forgives that something was removed while it was to be copied: the next pass sees that.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: uint64(info.Size()), mode: info.Mode()} //nolint:gosec // not negative
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.ino, s.ctime = st.Ino, changed(st)
	}
	return s
}
