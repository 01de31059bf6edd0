//go:build linux

package proc

import (
	"bytes"
	"io"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// fuseMagic is the type of FUSE in statfs: FUSE_SUPER_MAGIC of linux/magic.h.
const fuseMagic = 0x65735546

// Between fork and exec Go's runtime stands still with the child, and this process is what answers the kernel about shared
// directories. So the child must not touch one: the working directory is entered before, by a thread that has one of its own, and
// what is to be read from there before a program runs is left to a shell.

// launch starts a program; attr.Dir is its working directory.
func launch(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	if needsShell(path) {
		path, argv = "/bin/sh", append([]string{"sh", "-c", `exec "$0" "$@"`, path}, argv[1:]...)
	}
	dir := attr.Dir
	attr.Dir = ""
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if dir != "" {
			if err = unix.Chdir(dir); err != nil {
				return
			}
		}
		pid, err = syscall.ForkExec(path, argv, attr)
	}()
	<-done
	return pid, err //nolint:wrapcheck // the caller looks for the number
}

// needsShell reports whether the kernel may have to read from a shared directory to run a program: it lies there, or is a script,
// whose interpreter may.
func needsShell(path string) bool {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) == nil && st.Type == fuseMagic {
		return true
	}
	f, err := os.Open(path)
	if err != nil {
		return false // the kernel says what is wrong
	}
	defer f.Close()
	head := make([]byte, 2)
	_, err = io.ReadFull(f, head)
	return err == nil && bytes.Equal(head, []byte("#!"))
}
