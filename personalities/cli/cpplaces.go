package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
	"capsem/core/proto"
)

// What may be the source of a cp and where its target may be, on both sides.

// localSource describes what is to be copied into a VM; nil for standard input.
func localSource(name string) (fs.FileInfo, error) {
	if name == "-" {
		return nil, nil //nolint:nilnil // no file is no description
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, localFault("read", name, err)
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil, notRegular(name, info.Mode())
	}
	return info, nil
}

// openRegular opens a file to read, and nothing but a file: a named pipe that took its place meanwhile would hold us up where no
// Ctrl-C reaches.
func openRegular(name string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, localFault("read", name, err)
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		return f, info, nil
	}
	_ = f.Close() // nothing was read
	if err != nil {
		return nil, nil, localFault("read", name, err)
	}
	return nil, nil, notRegular(name, info.Mode())
}

func notRegular(name string, mode fs.FileMode) error {
	err := fault.New(fault.Invalid, "%s is %s, and cp copies files and directories", name, kindOf(mode))
	if mode&fs.ModeSocket != 0 {
		return err
	}
	return err.WithHint("to copy what it gives: capsem cp - VM:PATH < %s", name)
}

// kindOf names what is neither a file, nor a directory, nor a link.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "a special file"
}

// maxLeftOut is how many of the files that were left out of a copy are named.
const maxLeftOut = 10

// leftOut collects what was left out of a directory's copy.
type leftOut struct {
	named []string
	count int
}

func (l *leftOut) add(name string, mode fs.FileMode) {
	if l.count++; l.count <= maxLeftOut {
		l.named = append(l.named, fmt.Sprintf("left out %.200q: it is %s", name, kindOf(mode)))
	}
}

func (l *leftOut) notes() []string {
	if l.count > maxLeftOut {
		return append(l.named, fmt.Sprintf("left out %d more pipes, sockets and devices", l.count-maxLeftOut))
	}
	return l.named
}

// localParent refuses a target whose directory is not there.
func localParent(name string) error {
	dir := filepath.Dir(name)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "there is no directory %s", dir).WithHint("mkdir -p %s", dir)
	}
	return nil
}

// localFault says what is wrong with a file of this machine.
func localFault(what, name string, err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return fault.Wrap(err, fault.Invalid, "cannot %s %s: %s", what, name, err)
}

// guestParent refuses a target whose directory is not in the VM, before anything is sent.
func (j *copyJob) guestParent(ctx context.Context) error {
	dir := path.Dir(path.Clean(j.guest))
	if dir == "." || dir == "/" || dir == "/root" {
		return nil
	}
	info, err := j.svc.StatFile(ctx, j.vm, dir)
	switch {
	case missing(err):
		return fault.New(fault.NotFound, "there is no directory %s in VM %s", rooted(dir), j.vm).WithHint("capsem exec %s -- mkdir -p %s", j.vm, rooted(dir))
	case err != nil:
		return j.inGuest(err)
	case info.Type != "dir" && info.Type != "symlink":
		return fault.New(fault.Invalid, "%s in VM %s is no directory", rooted(dir), j.vm)
	}
	return nil
}

// maxLinks is how many symbolic links in a row are followed.
const maxLinks = 10

// sourceInGuest describes the source in the VM, behind the symbolic links that its name stands for.
func (j *copyJob) sourceInGuest(ctx context.Context) (proto.FileInfo, error) {
	for range maxLinks {
		info, err := j.svc.StatFile(ctx, j.vm, j.guest)
		if err != nil || info.Type != "symlink" || info.Target == "" {
			return info, j.inGuest(err)
		}
		if path.IsAbs(info.Target) {
			j.guest = info.Target
		} else {
			j.guest = path.Join(path.Dir(rooted(j.guest)), info.Target)
		}
	}
	return proto.FileInfo{}, fault.New(fault.Forbidden, "%s:%s: too many symbolic links", j.vm, j.guest)
}

// noFile is how a guest says that there is no file, unlike a service that says that there is no VM.
const noFile = ": no such file or directory"

func missing(err error) bool {
	_, message, _ := publicOf(err)
	return fault.Is(err, fault.NotFound) && strings.HasSuffix(message, noFile)
}

func publicOf(err error) (code fault.Code, message, hint string) {
	if err == nil {
		return "", "", ""
	}
	return fault.Public(err)
}

// inGuest makes a guest's complaint name the file as the user did: of an absolute path the guest leaves the first slash out.
func (j *copyJob) inGuest(err error) error {
	code, message, hint := publicOf(err)
	below, quoted := strings.TrimPrefix(path.Clean(j.guest), "/"), `path "`+strings.TrimLeft(j.guest, "/")
	switch {
	case err == nil:
		return nil
	case missing(err):
		message = fmt.Sprintf("there is no %s in VM %s", rooted(j.guest), j.vm)
	case path.IsAbs(j.guest) && below != "" && strings.HasPrefix(message, below):
		message = "/" + message
	case path.IsAbs(j.guest) && strings.HasPrefix(message, quoted):
		message = strings.Replace(message, quoted, `path "/`+strings.TrimPrefix(quoted, `path "`), 1)
	default:
		return err
	}
	return &fault.Error{Code: code, Message: message, Hint: hint, Cause: err}
}

// rooted makes a guest path absolute and clean, as the file routes understand it.
func rooted(guest string) string {
	if path.IsAbs(guest) {
		return path.Clean(guest)
	}
	return path.Join("/root", guest)
}
