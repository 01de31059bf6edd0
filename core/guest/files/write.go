//go:build linux

package files

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
	"capsem/core/guest/frames"
	"capsem/core/proto"
)

// errAborted is a host that left before it had sent the whole content.
var errAborted = errors.New("the content ended early; the file is as it was before")

// write replaces a file by what the stream brings. The new content is complete and on disk before it takes the name.
func write(req *proto.FileRequest, src *frames.Source) (*proto.FileInfo, error) {
	root, name, err := open(req)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if name, err = followed(root, name); err != nil {
		return nil, err
	}
	if req.Parents {
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return nil, err //nolint:wrapcheck // classified by the caller
		}
	}
	t := &target{root: root, name: name, mode: fs.FileMode(req.Mode), uid: -1, gid: -1}
	if err := t.inspect(); err != nil {
		return nil, err
	}
	if err := t.fill(src); err != nil {
		return nil, err
	}
	return stat(root, name)
}

// followed resolves a symbolic link at the end of a name, so that what it points to is replaced and not the link. A link
// that leads out of the root is refused.
func followed(root *os.Root, name string) (string, error) {
	for range 10 {
		link, err := root.Readlink(name)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) {
			return name, nil // no link
		}
		if err != nil {
			return "", err //nolint:wrapcheck // classified by the caller
		}
		if path.IsAbs(link) {
			rest, inside := strings.CutPrefix(link, strings.TrimSuffix(root.Name(), "/")+"/")
			if !inside {
				return "", fault.New(fault.Forbidden, "%s is a symbolic link that leads out of the directory", name)
			}
			name = path.Clean(rest)
			continue
		}
		if name = path.Join(path.Dir(name), link); name == ".." || strings.HasPrefix(name, "../") {
			return "", fault.New(fault.Forbidden, "a symbolic link leads out of the directory")
		}
	}
	return "", fault.New(fault.Forbidden, "%s: too many symbolic links", name)
}

// target is a file about to be replaced.
type target struct {
	root     *os.Root
	name     string
	mode     fs.FileMode
	uid, gid int
}

// inspect takes mode and owner from the file that is there.
func (t *target) inspect() error {
	info, err := t.root.Lstat(t.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err //nolint:wrapcheck // classified by the caller
	case info.IsDir():
		return fault.New(fault.Conflict, "%s is a directory", t.name)
	case !info.Mode().IsRegular():
		return fault.New(fault.Conflict, "%s exists and is not a regular file", t.name)
	default:
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			t.uid, t.gid = int(st.Uid), int(st.Gid)
		}
		if t.mode == 0 {
			t.mode = info.Mode().Perm()
		}
	}
	if t.mode == 0 {
		t.mode = 0o644
	}
	return nil
}

// fill writes the content under a temporary name in the same directory and then renames it.
func (t *target) fill(src *frames.Source) (err error) {
	temp := path.Join(path.Dir(t.name), ".capsem-"+rand.Text()+".tmp")
	f, err := t.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "there is no directory %s", path.Dir(t.name))
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		pe.Path = t.name // the temporary name means nothing to the caller
	}
	if err != nil {
		return err //nolint:wrapcheck // classified by the caller
	}
	defer func() {
		if err == nil {
			return
		}
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			pe.Path = t.name // the temporary name means nothing to the caller
		}
		err = errors.Join(err, t.root.Remove(temp))
	}()
	err = receive(f, src)
	if err == nil && t.uid >= 0 && (t.uid != os.Getuid() || t.gid != os.Getgid()) {
		err = f.Chown(t.uid, t.gid)
	}
	if err == nil {
		err = f.Chmod(t.mode)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		return err
	}
	if err := t.root.Rename(temp, t.name); err != nil {
		return err //nolint:wrapcheck // classified by the caller
	}
	return t.syncDir()
}

func receive(f *os.File, src *frames.Source) error {
	for {
		kind, data, err := src.Next()
		if err != nil {
			return errAborted
		}
		if kind != proto.KindData {
			return proto.ErrBadStreamFrame
		}
		if len(data) == 0 {
			return nil
		}
		if _, err := f.Write(data); err != nil {
			return err //nolint:wrapcheck // classified by the caller
		}
	}
}

// syncDir makes the new name durable.
func (t *target) syncDir() error {
	dir, err := t.root.Open(path.Dir(t.name))
	if err != nil {
		return err //nolint:wrapcheck // classified by the caller
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
