//go:build linux

package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
	"capsem/core/guest/frames"
	"capsem/core/proto"
)

// maxListed bounds one listing.
const maxListed = 100_000

// lister sends one listing as JSON lines, many to a frame.
type lister struct {
	root  *os.Root
	out   *frames.Writer
	batch []byte
	left  int
}

func list(root *os.Root, name string, depth int, out *frames.Writer) error {
	l := &lister{root: root, out: out, left: maxListed}
	info, err := root.Stat(name)
	if err != nil {
		return err //nolint:wrapcheck // classified by the caller
	}
	if !info.IsDir() {
		return fault.New(fault.Invalid, "%s is not a directory", name)
	}
	if err := l.dir(name, depth); err != nil {
		return err
	}
	return l.flush()
}

// dir lists a directory in the order of its names; what is below one follows it.
func (l *lister) dir(name string, depth int) error {
	entries, err := l.read(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		child := path.Join(name, e.Name())
		info, err := l.root.Lstat(child)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err //nolint:wrapcheck // classified by the caller
		}
		if err := l.add(describe(l.root, child, info)); err != nil {
			return err
		}
		if info.IsDir() && depth > 1 {
			if err := l.dir(child, depth-1); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func (l *lister) read(name string) ([]fs.DirEntry, error) {
	f, err := l.root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err //nolint:wrapcheck // classified by the caller
	}
	defer f.Close()
	entries, err := f.ReadDir(l.left + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err //nolint:wrapcheck // classified by the caller
	}
	if len(entries) > l.left {
		return nil, tooMany()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

func tooMany() error {
	return fault.New(fault.TooLarge, "more than %d files; list a directory further down, or less deep", maxListed)
}

func (l *lister) add(fi *proto.FileInfo) error {
	if l.left--; l.left < 0 {
		return tooMany()
	}
	line, err := marshalLine(fi)
	if err != nil {
		return err
	}
	if len(l.batch)+len(line) > proto.MaxChunk {
		if err := l.flush(); err != nil {
			return err
		}
	}
	l.batch = append(l.batch, line...)
	return nil
}

func (l *lister) flush() error {
	if len(l.batch) == 0 {
		return nil
	}
	err := l.out.Send(proto.KindData, l.batch)
	l.batch = l.batch[:0]
	return err //nolint:wrapcheck // the host is gone
}
