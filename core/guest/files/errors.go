//go:build linux

package files

import (
	"errors"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
)

var codes = map[syscall.Errno]fault.Code{
	unix.ENOENT: fault.NotFound, unix.EACCES: fault.Forbidden, unix.EPERM: fault.Forbidden, unix.EROFS: fault.Forbidden,
	unix.ELOOP: fault.Forbidden, unix.EXDEV: fault.Forbidden, unix.EBUSY: fault.Conflict, unix.EEXIST: fault.Conflict,
	unix.ENOTEMPTY: fault.Conflict, unix.EISDIR: fault.Invalid, unix.ENOTDIR: fault.Invalid, unix.ENAMETOOLONG: fault.Invalid,
	unix.EINVAL: fault.Invalid, unix.ENXIO: fault.Invalid, unix.ENOSPC: fault.NoSpace, unix.EDQUOT: fault.NoSpace, unix.EFBIG: fault.NoSpace,
}

// classify gives an error the code that the host passes on. What the standard library refuses without asking the kernel is
// a path that leads out of its root.
func classify(err error) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	pe, isPath := errors.AsType[*fs.PathError](err)
	errno, isErrno := errors.AsType[syscall.Errno](err)
	switch {
	case isErrno && isPath:
		return fault.Wrap(err, codeOf(errno), "%s: %v", pe.Path, errno)
	case isErrno:
		return fault.Wrap(err, codeOf(errno), "%v", errno)
	case isPath:
		return fault.Wrap(err, fault.Forbidden, "%s: %v", pe.Path, pe.Err)
	}
	return err
}

func codeOf(errno syscall.Errno) fault.Code {
	if code, ok := codes[errno]; ok {
		return code
	}
	return fault.Internal
}
