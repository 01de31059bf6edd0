package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// errBadArchive is an archive that names something outside the target.
var errBadArchive = errors.New("the archive from the VM names something outside the target")

// unpackTree writes a tar from a guest beneath root. Files, directories and links are made with their permission bits; never
// setuid, owners or devices. Directories get their mode last, since they may be read-only.
func unpackTree(r io.Reader, root *os.Root) error {
	type dir struct {
		name string
		mode fs.FileMode
	}
	var dirs []dir
	tr := tar.NewReader(r)
	for {
		head, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		name := path.Clean(head.Name)
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%.80q: %w", head.Name, errBadArchive)
		}
		if head.Typeflag == tar.TypeDir {
			dirs = append(dirs, dir{name, notForOthers(head)})
		}
		if err := unpackOne(tr, head, name, root); err != nil {
			return fmt.Errorf("unpack %.200q: %w", name, err)
		}
	}
	for _, dir := range slices.Backward(dirs) {
		if err := root.Chmod(dir.name, dir.mode); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
	}
	// Take what follows the archive's end, so that the sender is not cut off.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	return nil
}

func unpackOne(tr *tar.Reader, head *tar.Header, name string, root *os.Root) error {
	if head.Typeflag == tar.TypeDir {
		return unpackDir(root, name)
	}
	switch head.Typeflag {
	case tar.TypeReg, tar.TypeSymlink, tar.TypeLink:
	default:
		return nil // devices, pipes and sockets stay in the guest
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err //nolint:wrapcheck // the caller names the file
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err //nolint:wrapcheck // the caller names the file
	}
	switch head.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(head.Linkname, name) //nolint:wrapcheck // the caller names the file
	case tar.TypeLink:
		if !filepath.IsLocal(path.Clean(head.Linkname)) {
			return errBadArchive
		}
		return root.Link(path.Clean(head.Linkname), name) //nolint:wrapcheck // the caller names the file
	}
	return unpackFile(tr, head, name, root)
}

// unpackDir makes a directory that can be written to, in place of whatever else has that name.
func unpackDir(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if err == nil && !info.IsDir() {
		err = root.Remove(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err //nolint:wrapcheck // the caller names the file
	}
	if err := root.MkdirAll(name, 0o755); err != nil {
		return err //nolint:wrapcheck // the caller names the file
	}
	return root.Chmod(name, 0o755) //nolint:wrapcheck // the caller names the file
}

// notForOthers is an entry's mode without the right of other users of this machine to write: the guest has no say in that.
func notForOthers(head *tar.Header) os.FileMode { return head.FileInfo().Mode().Perm() &^ 0o022 }

func unpackFile(tr *tar.Reader, head *tar.Header, name string, root *os.Root) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err //nolint:wrapcheck // the caller names the file
	}
	_, err = io.Copy(f, tr)
	if err == nil {
		err = f.Chmod(notForOthers(head))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return root.Chtimes(name, head.ModTime, head.ModTime) //nolint:wrapcheck // the caller names the file
}
