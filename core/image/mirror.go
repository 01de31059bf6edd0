package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"capsem/core/tree"
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
	d, err := tree.Open(m.from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = errors.Join(m.dir("", m.to, d, 0), d.Close())
	}
	if err != nil {
		return fmt.Errorf("copy workspace: %w", err)
	}
	return nil
}

// dir copies what is in an open directory to another; rel is its path in the workspace.
func (m *Mirror) dir(rel, to string, from *tree.Dir, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%.200s...: too deep", to)
	}
	info, err := from.Stat()
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		if !errors.Is(err, fs.ErrExist) {
			return err //nolint:wrapcheck // names the file
		}
		if err := os.Chmod(to, 0o700); err != nil {
			return err //nolint:wrapcheck // as above
		}
	}
	to, done, err := shorten(to)
	if err != nil {
		return err
	}
	defer done()
	names, err := from.Names()
	if err != nil {
		return gone(err)
	}
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
		if err := m.entry(from, rel, filepath.Join(to, name), name, depth); err != nil {
			return err
		}
	}
	if err := m.prune(rel, to, there); err != nil {
		return err
	}
	return keepTimes(to, info)
}

// entry copies one entry unless it is as it was.
func (m *Mirror) entry(from *tree.Dir, dir, to, name string, depth int) error {
	info, err := from.Lstat(name)
	if err != nil {
		return gone(err)
	}
	rel := filepath.Join(dir, name)
	now, was := stampOf(info), m.seen[rel]
	isDir := info.Mode.IsDir()
	if was.mode.Type() != now.mode.Type() || !isDir && was != now {
		if err := tree.Remove(to); err != nil {
			return err //nolint:wrapcheck // names the file
		}
	} else if !isDir {
		return nil
	}
	m.seen[rel] = now
	if time.Since(info.Changed) < coarse {
		m.seen[rel] = stamp{mode: now.mode} // it may change once more and look the same
	}
	if isDir {
		return m.sub(from, rel, to, name, depth)
	}
	if err := copyEntry(from, name, to, info); err != nil {
		delete(m.seen, rel)
		if bad := tree.Remove(to); bad != nil {
			return bad //nolint:wrapcheck // names the file
		}
		return gone(err)
	}
	return nil
}

// sub copies a directory in another.
func (m *Mirror) sub(from *tree.Dir, rel, to, name string, depth int) error {
	d, err := from.Dir(name)
	if err != nil {
		delete(m.seen, rel)
		return gone(err)
	}
	return errors.Join(m.dir(rel, to, d, depth+1), d.Close())
}

// prune removes what is no longer there.
func (m *Mirror) prune(rel, to string, there map[string]bool) error {
	entries, err := os.ReadDir(to)
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	for _, e := range entries {
		if there[e.Name()] {
			continue
		}
		delete(m.seen, filepath.Join(rel, e.Name()))
		if err := tree.Remove(filepath.Join(to, e.Name())); err != nil {
			return err //nolint:wrapcheck // names the file
		}
	}
	return nil
}

// gone forgives that something was removed, or made something else, while it was to be copied: the next pass sees that.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, tree.ErrOther) {
		return nil
	}
	return err
}

func stampOf(info tree.Info) stamp {
	return stamp{size: uint64(info.Size), mode: info.Mode, ino: info.Ino, ctime: info.Changed.UnixNano()} //nolint:gosec // not negative
}
