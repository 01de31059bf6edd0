//go:build linux

package proc

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"capsem/core/guest/environ"
)

// Codes of a command that could not be run, as shells give them.
const (
	// CodeCannotRun is a program that is there but cannot be executed, or a working directory that is not there.
	CodeCannotRun = 126
	// CodeNotFound is a program that is not there.
	CodeNotFound = 127
)

// StartError is a command that could not be run, with the code a shell would give it.
type StartError struct {
	// Code is CodeCannotRun or CodeNotFound.
	Code int
	// Text is one plain line.
	Text string
}

// Error is the plain line.
func (e *StartError) Error() string { return e.Text }

func cannot(code int, format string, args ...any) *StartError {
	return &StartError{Code: code, Text: fmt.Sprintf(format, args...)}
}

// lookup finds the file to execute for a program name, as execvp does, but with the command's own PATH and directory.
func lookup(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if err := executable(path); err != nil {
			return "", startError(name, err)
		}
		return path, nil
	}
	var denied error
	for _, d := range filepath.SplitList(environ.Lookup(env, "PATH")) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		path := filepath.Join(d, name)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if errors.Is(err, unix.EACCES) {
			denied = err
		}
	}
	if denied != nil {
		return "", startError(name, denied)
	}
	return "", cannot(CodeNotFound, "%s: command not found", name)
}

func executable(path string) error {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	switch {
	case err != nil:
		return fmt.Errorf("find program: %w", err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.EISDIR
	case st.Mode&0o111 == 0:
		return unix.EACCES
	}
	return nil
}

// startError turns what the kernel says about a program into what a shell says.
func startError(name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return cannot(CodeNotFound, "%s: no such file", name)
	case errors.Is(err, unix.EISDIR):
		return cannot(CodeCannotRun, "%s: is a directory", name)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return cannot(CodeCannotRun, "%s: permission denied (is it executable?)", name)
	case errors.Is(err, unix.ENOEXEC):
		return cannot(CodeCannotRun, "%s: not a program this machine can run", name)
	case errors.Is(err, unix.E2BIG):
		return cannot(CodeCannotRun, "%s: arguments and environment are too long together", name)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return cannot(CodeCannotRun, "%s: the VM has run out of memory, files or processes (%v)", name, err)
	}
	return cannot(CodeCannotRun, "%s: %v", name, err)
}
