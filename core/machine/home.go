package machine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"capsem/core/template"
)

// saveHomeCommand prints the guest's home directory as an archive.
const saveHomeCommand = "tar -C " + workspaceDir + " --sort=name --owner=0 --group=0 --numeric-owner -cf - ."

// Bounds of a home directory that new workspaces begin with: the images' own have two small files.
const maxHome, maxHomeEntries = 4 << 20, 1000

// errBigHome is an image whose home directory is too large to be kept in templates; the guest copies it then.
var errBigHome = errors.New("the image's home directory is large")

// saveHome keeps what the image has in the place of the workspace, so that new workspaces have it before the guest asks. It is left
// out where the guest cannot pack it, or it is large.
func saveHome(ctx context.Context, a guestAgent, path string) error {
	var archive bytes.Buffer
	code, err := runIn(ctx, a, saveHomeCommand, &bounded{&archive, maxHome})
	if errors.Is(err, errBigHome) || (err == nil && code != 0) {
		return nil
	}
	if err == nil {
		err = os.WriteFile(path, archive.Bytes(), 0o600)
	}
	if err != nil {
		return fmt.Errorf("save home: %w", err)
	}
	return nil
}

// bounded is a buffer that takes so many bytes.
type bounded struct {
	to   io.Writer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errBigHome
	}
	return b.to.Write(p) //nolint:wrapcheck // a buffer's
}

// furnish unpacks the home directory of a template into a workspace that is empty. No guest that ran somebody's program has made
// the archive; it is read as if one had.
func furnish(t *template.Template, workspace string) error {
	if _, ok := t.Files[template.HomeFile]; !ok || !isEmpty(workspace) {
		return nil
	}
	f, err := t.Open(template.HomeFile)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	defer f.Close()
	root, err := os.OpenRoot(workspace)
	if err != nil {
		return fmt.Errorf("furnish workspace: %w", err)
	}
	defer root.Close()
	archive := tar.NewReader(io.LimitReader(f, maxHome))
	for range maxHomeEntries {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = unpack(root, h, archive)
		}
		if err != nil {
			return fmt.Errorf("furnish workspace: %w", err)
		}
	}
	return nil
}

// unpack makes one entry of an archive. What is neither file, directory nor symbolic link is left out.
func unpack(root *os.Root, h *tar.Header, from io.Reader) error {
	mode := os.FileMode(h.Mode).Perm() //nolint:gosec // permission bits
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(h.Name, 0o700); err != nil {
			return err //nolint:wrapcheck // names the file
		}
		return root.Chmod(h.Name, mode|0o700) //nolint:wrapcheck // names the file
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, h.Name) //nolint:wrapcheck // names the file
	case tar.TypeReg:
		f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return err //nolint:wrapcheck // names the file
		}
		_, err = io.Copy(f, from)
		err = errors.Join(err, f.Chmod(mode), f.Close()) // whatever the umask
		if err == nil {
			err = root.Chtimes(h.Name, h.ModTime, h.ModTime)
		}
		return err
	}
	return nil
}

// isEmpty reports whether a directory has nothing in it.
func isEmpty(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}
