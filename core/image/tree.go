package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// maxDepth bounds how deep directories are copied: a path in a guest can be no longer than 4096 bytes.
const maxDepth = 2048

// copyTree copies a directory to a place where there is none, or an empty one: files, directories and links, with their
// permissions and times. Sockets and the like live only as long as who made them. Where there is nothing, nothing is copied.
func copyTree(from, to string) error {
	info, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = copyDir(from, to, info, 0)
	}
	if err != nil {
		return fmt.Errorf("copy workspace: %w", err)
	}
	return nil
}

func copyDir(from, to string, info fs.FileInfo, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%.200s...: too deep", from)
	}
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err //nolint:wrapcheck // names the file
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil {
			err = copyEntry(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), info, depth)
		}
		if err != nil {
			return err //nolint:wrapcheck // names the file
		}
	}
	return keepTimes(to, info)
}

func copyEntry(from, to string, info fs.FileInfo, depth int) error {
	switch info.Mode().Type() {
	case 0:
		return copyRegular(from, to, info)
	case fs.ModeDir:
		return copyDir(from, to, info, depth+1)
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err == nil {
			err = os.Symlink(target, to)
		}
		return err //nolint:wrapcheck // names the file
	}
	return nil
}

func copyRegular(from, to string, info fs.FileInfo) error {
	src, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	if err = clone(dst, src); err != nil {
		_, err = io.Copy(dst, src)
	}
	if err := errors.Join(err, dst.Close()); err != nil {
		return err
	}
	return keepTimes(to, info)
}

// keepTimes gives a copy the permissions and the time of the original.
func keepTimes(to string, info fs.FileInfo) error {
	return errors.Join(os.Chmod(to, info.Mode().Perm()), os.Chtimes(to, time.Time{}, info.ModTime()))
}
