package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"capsem/core/tree"
)

// maxDepth bounds how deep directories are copied: a path in a guest can be no longer than 4096 bytes.
const maxDepth = 2048

// copyTree copies a directory to a place where there is none, or an empty one: files, directories and links, with their
// permissions and times. Sockets and the like live only as long as who made them. Where there is nothing, nothing is copied.
func copyTree(from, to string) error {
	d, err := tree.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = errors.Join(copyDir(d, to, 0), d.Close())
	}
	if err != nil {
		return fmt.Errorf("copy workspace: %w", err)
	}
	return nil
}

// copyDir copies what is in an open directory.
func copyDir(from *tree.Dir, to string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%.200s...: too deep", to)
	}
	info, err := from.Stat()
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err //nolint:wrapcheck // names the file
	}
	to, done, err := shorten(to)
	if err != nil {
		return err
	}
	defer done()
	names, err := from.Names()
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	for _, name := range names {
		info, err := from.Lstat(name)
		if err != nil {
			return err //nolint:wrapcheck // names the file
		}
		if info.Mode.IsDir() {
			err = inDir(from, name, func(sub *tree.Dir) error { return copyDir(sub, filepath.Join(to, name), depth+1) })
		} else {
			err = copyEntry(from, name, filepath.Join(to, name), info)
		}
		if err != nil {
			return err
		}
	}
	return keepTimes(to, info)
}

// inDir lends a directory in another.
func inDir(d *tree.Dir, name string, do func(*tree.Dir) error) error {
	sub, err := d.Dir(name)
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	return errors.Join(do(sub), sub.Close())
}

// copyEntry copies what is no directory.
func copyEntry(from *tree.Dir, name, to string, info tree.Info) error {
	switch info.Mode.Type() {
	case 0:
		return copyRegular(from, name, to, info)
	case fs.ModeSymlink:
		target, err := from.Readlink(name)
		if err == nil {
			err = os.Symlink(target, to)
		}
		return err //nolint:wrapcheck // names the file
	}
	return nil
}

func copyRegular(from *tree.Dir, name, to string, info tree.Info) error {
	src, err := from.File(name)
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	if err := errors.Join(copyData(dst, src), dst.Close()); err != nil {
		return err
	}
	return keepTimes(to, info)
}

// keepTimes gives a copy the permissions and the time of the original.
func keepTimes(to string, info tree.Info) error {
	return errors.Join(os.Chtimes(to, time.Time{}, info.Mtime), os.Chmod(to, info.Mode.Perm()))
}
