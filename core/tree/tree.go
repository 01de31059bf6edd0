// Package tree walks and removes directories whose content a guest has made, and may be changing meanwhile: a workspace, or a copy of
// one.
//
// Every step is taken from the directory that is open, by one name, and follows no link. So a directory that is swapped for a link
// while it is walked leads nowhere, and a file that is swapped for a fifo holds nobody up. Where the guest has taken its owner's
// permissions away they are given back for as long as it takes to open a file, or to walk a directory.
package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrOther is a name that is no longer of the kind that it was a moment ago.
var ErrOther = errors.New("it is something else by now")

// Info is what a name is, links not followed.
type Info struct {
	// Mode has the type and the permissions, without setuid, setgid and sticky.
	Mode fs.FileMode
	// Size is in bytes, Blocks counts 512 of them.
	Size, Blocks   int64
	Ino            uint64
	Changed, Mtime time.Time
}

// Dir is an open directory.
type Dir struct {
	f    *os.File
	loan *loan
}

// Open opens a directory by its path, whose last part must be no link.
func Open(path string) (*Dir, error) {
	return openDir(unix.AT_FDCWD, path, path)
}

// Dir opens a directory in d.
func (d *Dir) Dir(name string) (*Dir, error) {
	return openDir(int(d.f.Fd()), name, filepath.Join(d.f.Name(), name))
}

func openDir(at int, name, path string) (*Dir, error) {
	fd, err := open(at, name, unix.O_DIRECTORY, fs.ModeDir|0o500)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	d := &Dir{f: os.NewFile(uintptr(fd), path)}
	if err := d.borrow(); err != nil {
		return nil, errors.Join(&os.PathError{Op: "open", Path: path, Err: err}, d.f.Close())
	}
	return d, nil
}

// File opens a regular file in d for reading.
func (d *Dir) File(name string) (*os.File, error) {
	path := filepath.Join(d.f.Name(), name)
	fd, err := open(int(d.f.Fd()), name, 0, 0o400)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || typeOf(&st) != 0 {
		return nil, errors.Join(&os.PathError{Op: "open", Path: path, Err: ErrOther}, err, f.Close())
	}
	return f, nil
}

// open opens a name for reading. need is its type, and the permissions that this takes of the owner.
func open(at int, name string, flags int, need fs.FileMode) (int, error) {
	// O_NONBLOCK: a fifo in the place of a file is not waited for.
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOCTTY
	try := func() (int, error) { return openat(at, name, flags) }
	fd, err := try()
	if errors.Is(err, unix.EACCES) {
		fd, err = permitted(at, name, need, err, try)
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EMLINK) {
		err = fmt.Errorf("%w (%w)", ErrOther, err)
	}
	return fd, err
}

func openat(at int, name string, flags int) (fd int, err error) {
	for range 100 { // signals of Go's runtime
		if fd, err = unix.Openat(at, name, flags, 0); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return fd, err
}

// Names lists what is in d.
func (d *Dir) Names() ([]string, error) {
	if _, err := d.f.Seek(0, 0); err != nil {
		return nil, err //nolint:wrapcheck // names the file
	}
	return d.f.Readdirnames(-1) //nolint:wrapcheck // names the file
}

// Lstat says what a name in d is.
func (d *Dir) Lstat(name string) (Info, error) {
	var st unix.Stat_t
	loans.RLock()
	defer loans.RUnlock()
	if err := unix.Fstatat(int(d.f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Info{}, &os.PathError{Op: "lstat", Path: filepath.Join(d.f.Name(), name), Err: err}
	}
	return infoOf(&st), nil
}

// Stat says what d is.
func (d *Dir) Stat() (Info, error) {
	i, err := Stat(d.f)
	if d.loan != nil && uint32(i.Mode.Perm()) == d.loan.lent&0o777 {
		i.Mode = fs.ModeDir | fs.FileMode(d.loan.own)&fs.ModePerm
	}
	return i, err
}

// Stat says what an open file is.
func Stat(f *os.File) (Info, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Info{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return infoOf(&st), nil
}

// Readlink returns the target of a link in d.
func (d *Dir) Readlink(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(d.f.Fd()), name, buf)
	if errors.Is(err, unix.EINVAL) {
		err = ErrOther
	}
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: filepath.Join(d.f.Name(), name), Err: err}
	}
	return string(buf[:n]), nil
}

// Sync hands the names in d to the disk.
func (d *Dir) Sync() error { return unix.Fsync(int(d.f.Fd())) } //nolint:wrapcheck // by the caller

// Close closes d.
func (d *Dir) Close() error { return errors.Join(d.giveBack(), d.f.Close()) }

func infoOf(st *unix.Stat_t) Info {
	return Info{
		Mode: typeOf(st) | fs.FileMode(st.Mode)&fs.ModePerm, Size: st.Size, Blocks: st.Blocks, Ino: st.Ino,
		Changed: ctimeOf(st), Mtime: mtimeOf(st),
	}
}

// typeOf is the type of a file; a regular one has none.
func typeOf(st *unix.Stat_t) fs.FileMode {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 0
	case unix.S_IFDIR:
		return fs.ModeDir
	case unix.S_IFLNK:
		return fs.ModeSymlink
	case unix.S_IFIFO:
		return fs.ModeNamedPipe
	case unix.S_IFSOCK:
		return fs.ModeSocket
	}
	return fs.ModeIrregular
}
