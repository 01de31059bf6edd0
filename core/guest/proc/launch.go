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
	if !shared(attr.Dir) {
		return syscall.ForkExec(path, argv, attr) //nolint:wrapcheck // the caller looks for the number
	}
	dir := attr.Dir
	attr.Dir = ""
	r := launcher().start(order{dir, path, argv, attr, make(chan started, 1)})
	return r.pid, r.err
}

// order is one program for a launching thread, started what came of it.
type (
	order struct {
		dir, path string
		argv      []string
		attr      *syscall.ProcAttr
		done      chan started
	}
	started struct {
		pid int
		err error
	}
	// thread takes orders, one at a time.
	thread chan order
)

// maxIdle is how many launching threads wait for the next order: making one takes longer than starting a program.
const maxIdle = 2

var idle = make(chan thread, maxIdle)

// launcher returns a launching thread: one that waits, or a new one.
func launcher() thread {
	select {
	case t := <-idle:
		return t
	default:
		t := make(thread)
		go t.run()
		return t
	}
}

func (t thread) start(o order) started {
	t <- o
	return <-o.done
}

// run carries orders out, each in its directory, until as many others wait for the next.
func (t thread) run() {
	runtime.LockOSThread() // for good: the thread ends with this goroutine
	apart := unix.Unshare(unix.CLONE_FS)
	for o := range t {
		r := started{err: apart}
		if r.err == nil {
			r.err = unix.Chdir(o.dir)
		}
		if r.err == nil {
			r.pid, r.err = syscall.ForkExec(o.path, o.argv, o.attr)
		}
		o.done <- r
		if apart != nil || unix.Chdir("/") != nil {
			return
		}
		select {
		case idle <- t:
		default:
			return
		}
	}
}

// shared reports whether a path leads into a shared directory.
func shared(path string) bool {
	var st unix.Statfs_t
	return path != "" && unix.Statfs(path, &st) == nil && st.Type == fuseMagic
}

// needsShell reports whether the kernel may have to read from a shared directory to run a program: it lies there, or is a script,
// whose interpreter may.
func needsShell(path string) bool {
	if shared(path) {
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
