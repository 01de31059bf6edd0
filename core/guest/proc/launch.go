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
func launch(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	if needsShell(path) {
		path, argv = "/bin/sh", append([]string{"sh", "-c", `exec "$0" "$@"`, path}, argv[1:]...)
	}
	dir := attr.Dir
	attr.Dir = ""
	type result struct {
		pid int
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		r := result{err: enter(dir)}
		if r.err == nil {
			r.pid, r.err = syscall.ForkExec(path, argv, attr)
		}
		done <- r
	}()
	r := <-done
	return r.pid, r.err
}

// enter gives the calling thread a working directory of its own.
func enter(dir string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil || dir == "" {
		return err //nolint:wrapcheck // the caller looks for the number
	}
	return unix.Chdir(dir) //nolint:wrapcheck // as above
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
