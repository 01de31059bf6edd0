package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxOpen is how many directories are open at once while a tree is removed; what is deeper is first moved up.
const maxOpen = 64

// Remove removes a file or a directory with all that is in it, whatever permissions the guest has left on it. What is not there is
// no error.
func Remove(path string) error {
	path = filepath.Clean(path)
	err := os.Remove(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	top, err := Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r := remover{top: top}
	err = r.empty(top, 0)
	if err := errors.Join(err, top.Close()); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove directory: %w", err)
	}
	return nil
}

type remover struct {
	top   *Dir
	moved int
}

// empty removes all that is in a directory. At the top there may be more after it was looked through: what was moved there.
func (r *remover) empty(d *Dir, depth int) error {
	d.allow()
	for {
		names, err := d.Names()
		if err != nil {
			return err
		}
		before := r.moved
		for _, name := range names {
			if err := r.one(d, name, depth); err != nil {
				return err
			}
		}
		if depth > 0 || r.moved == before {
			return nil
		}
	}
}

func (r *remover) one(d *Dir, name string, depth int) error {
	err := d.unlink(name, 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	sub, opened := d.Dir(name)
	if errors.Is(opened, fs.ErrNotExist) {
		return nil
	}
	if opened != nil {
		return errors.Join(err, opened)
	}
	if depth >= maxOpen {
		return errors.Join(r.moveUp(d, name, sub), sub.Close())
	}
	if err := errors.Join(r.empty(sub, depth+1), sub.Close()); err != nil {
		return err
	}
	if err := d.unlink(name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// moveUp moves a directory to the top, under a name that is not taken.
func (r *remover) moveUp(d *Dir, name string, sub *Dir) error {
	sub.allow() // else it cannot be moved to another directory
	for {
		r.moved++
		to := "capsem-removed-" + strconv.Itoa(r.moved)
		err := unix.Renameat(int(d.f.Fd()), name, int(r.top.f.Fd()), to)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "rename", Path: sub.f.Name(), Err: err}
		}
		return nil
	}
}

func (d *Dir) unlink(name string, flags int) error {
	if err := unix.Unlinkat(int(d.f.Fd()), name, flags); err != nil {
		return &os.PathError{Op: "remove", Path: filepath.Join(d.f.Name(), name), Err: err}
	}
	return nil
}

// allow gives the owner every permission on a directory. Where that fails, so does what needs it.
func (d *Dir) allow() { _ = unix.Fchmod(int(d.f.Fd()), 0o700) }
