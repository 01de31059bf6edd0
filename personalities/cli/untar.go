package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// maxDirs bounds the directories of one archive, which are remembered until its end; maxNamed the links that are named.
	maxDirs, maxNamed = 1 << 20, 3
	// maxPadding is what may follow the end of an archive, in bytes: tar fills its last record of 10 KiB.
	maxPadding = 1 << 20
)

var (
	errBadArchive = errors.New("the archive from the VM names something outside the target")
	errInflated   = errors.New("the archive from the VM holds more than was sent")
	errTooMany    = fmt.Errorf("the archive from the VM has more than %d directories", maxDirs)
	errPadding    = errors.New("the archive from the VM does not end")
)

// unpacker writes a tar from a guest beneath root, and trusts nothing in it. Files, directories and links are made with their
// permission bits, but never such that other users may write; never setuid, owners or devices. What is there keeps its mode.
type unpacker struct {
	root *os.Root
	// in counts what came, out what was written: a sparse file would fill the disk with what was never sent.
	in  *counted
	out int64
	// dirs are the directories that were made. They get their mode last, since they may be read-only.
	dirs map[string]fs.FileMode
	// outward counts the links that were left out, and names some: they lead out of root. Nothing that is copied here later, by
	// whatever program, is to be led elsewhere by a guest.
	outward int
	named   []string
	// special is what is neither a file, nor a directory, nor a link. It stays in the guest.
	special leftOut
}

// counted counts what is read.
type counted struct {
	io.Reader
	n int64
}

// Read reads and counts.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err //nolint:wrapcheck // a reader hands errors through
}

// unpackTree takes an archive to its end. The texts are about what was left out.
func unpackTree(r io.Reader, root *os.Root) (warnings []string, err error) {
	u := &unpacker{root: root, in: &counted{Reader: r}, dirs: map[string]fs.FileMode{}}
	tr := tar.NewReader(u.in)
	for {
		head, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
		name := path.Clean(head.Name)
		if !filepath.IsLocal(name) {
			return nil, fmt.Errorf("%.80q: %w", head.Name, errBadArchive)
		}
		if err := u.entry(tr, head, name); err != nil {
			return nil, fmt.Errorf("unpack %.200q: %w", name, err)
		}
	}
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(u.dirs))) { // what is in a directory comes before it
		if err := root.Chmod(name, u.dirs[name]); err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
	}
	return u.warnings(), u.drain()
}

// drain takes what follows the archive's end, so that the sender is not cut off.
func (u *unpacker) drain() error {
	n, err := io.Copy(io.Discard, io.LimitReader(u.in, maxPadding))
	if err == nil && n == maxPadding {
		err = errPadding
	}
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	return nil
}

func (u *unpacker) warnings() []string {
	if u.outward == 0 {
		return u.special.notes()
	}
	more := ""
	if u.outward > len(u.named) {
		more = ", ..."
	}
	text := fmt.Sprintf("left out %d symbolic links that lead out of the directory: %s%s", u.outward, strings.Join(u.named, ", "), more)
	if u.outward == 1 {
		text = "left out a symbolic link that leads out of the directory: " + u.named[0]
	}
	return append([]string{text}, u.special.notes()...)
}

func (u *unpacker) entry(tr *tar.Reader, head *tar.Header, name string) error {
	switch head.Typeflag {
	case tar.TypeDir, tar.TypeReg, tar.TypeGNUSparse, tar.TypeSymlink, tar.TypeLink:
	default:
		u.special.add(name, head.FileInfo().Mode())
		return nil
	}
	if err := u.parents(name); err != nil {
		return err
	}
	if head.Typeflag == tar.TypeDir {
		return u.dir(head, name)
	}
	if head.Typeflag == tar.TypeSymlink && !inside(head.Linkname, name) {
		if u.outward++; len(u.named) < maxNamed {
			u.named = append(u.named, fmt.Sprintf("%.80q", name))
		}
		return nil
	}
	if err := u.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err //nolint:wrapcheck // the caller names the file
	}
	switch head.Typeflag {
	case tar.TypeSymlink:
		return u.root.Symlink(head.Linkname, name) //nolint:wrapcheck // the caller names the file
	case tar.TypeLink:
		target := path.Clean(head.Linkname)
		if !filepath.IsLocal(target) {
			return errBadArchive
		}
		if err := u.parents(target); err != nil {
			return err
		}
		return u.root.Link(target, name) //nolint:wrapcheck // the caller names the file
	}
	return u.file(tr, head, name)
}

// parents makes the directories above name where tar did not, and refuses a link among them: no tar makes that, and the depth of
// what is behind it is not what it seems.
func (u *unpacker) parents(name string) error {
	parent := path.Dir(name)
	if parent == "." {
		return nil
	}
	if err := u.root.MkdirAll(parent, 0o755); err != nil {
		return err //nolint:wrapcheck // the caller names the file
	}
	for dir := parent; dir != "."; dir = path.Dir(dir) {
		info, err := u.root.Lstat(dir)
		if err != nil {
			return err //nolint:wrapcheck // as above
		}
		if !info.IsDir() {
			return errBadArchive
		}
	}
	return nil
}

// inside reports whether a link at name leads to something beneath the root. ".." counts only at the link's beginning: behind
// another link it would lead elsewhere than it seems to.
func inside(link, name string) bool {
	if link == "" || path.IsAbs(link) {
		return false
	}
	up, depth, begun := 0, strings.Count(name, "/"), false
	for part := range strings.SplitSeq(link, "/") {
		switch {
		case part == "..":
			if up++; begun || up > depth {
				return false
			}
		case part != "" && part != ".":
			begun = true
		}
	}
	return true
}

// dir makes a directory that can be written to, in place of whatever else has that name.
func (u *unpacker) dir(head *tar.Header, name string) error {
	info, err := u.root.Lstat(name)
	if err == nil && info.IsDir() {
		return nil
	}
	if err == nil {
		err = u.root.Remove(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err //nolint:wrapcheck // the caller names the file
	}
	if len(u.dirs) == maxDirs {
		return errTooMany
	}
	u.dirs[name] = head.FileInfo().Mode().Perm() &^ 0o022
	return u.root.Mkdir(name, 0o755) //nolint:wrapcheck // as above
}

func (u *unpacker) file(tr *tar.Reader, head *tar.Header, name string) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, head.FileInfo().Mode().Perm()&^0o022) // and the umask
	if err != nil {
		return err //nolint:wrapcheck // the caller names the file
	}
	_, err = io.Copy(&measured{u, f}, tr)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return u.root.Chtimes(name, head.ModTime, head.ModTime) //nolint:wrapcheck // the caller names the file
}

// measured writes no more than came.
type measured struct {
	u *unpacker
	f *os.File
}

// Write writes and counts.
func (m *measured) Write(p []byte) (int, error) {
	if m.u.out += int64(len(p)); m.u.out > m.u.in.n {
		return 0, errInflated
	}
	return m.f.Write(p) //nolint:wrapcheck // the caller names the file
}
