//go:build linux

// Package proc runs one command of the guest as a session of its own: it starts it, signals and kills all that belongs
// to it, reaps it and says how and after what time it ended.
package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/proto"
)

// Spec is one command.
type Spec struct {
	// Argv is the program and its arguments; the program is looked up in the PATH of Env.
	Argv []string
	// Dir is the working directory.
	Dir string
	// Env is the whole environment, KEY=VALUE.
	Env []string
	// Files are the descriptors of standard input, output and error; borrowed for Start.
	Files [3]int
	// TTY makes Files[0] the controlling terminal.
	TTY bool
	// Group, when not nil, is the cgroup to run in; the process takes it over, also when it cannot be started.
	Group *Cgroup
}

// Process is a running command and all it started. Its owner must call Wait.
type Process struct {
	pid   int
	pidfd *os.File
	start time.Time
	group *Cgroup

	mu     sync.Mutex
	reaped bool
}

// Start runs a command. The error is a *StartError.
func Start(spec Spec) (*Process, error) {
	p, err := start(spec)
	if err != nil {
		spec.Group.Release()
		if bad := checkDir(spec.Dir); bad != nil {
			return nil, bad
		}
		return nil, err
	}
	return p, nil
}

// checkDir says what is wrong with a working directory.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return cannot(CodeCannotRun, "working directory %.200q: %v", dir, errnoOf(err))
	case !info.IsDir():
		return cannot(CodeCannotRun, "working directory %.200q is not a directory", dir)
	}
	return nil
}

func start(spec Spec) (*Process, error) {
	path, err := lookup(spec.Argv[0], spec.Dir, spec.Env)
	if err != nil {
		return nil, err
	}
	pidfd := -1
	attr := &syscall.ProcAttr{
		Dir: spec.Dir, Env: spec.Env,
		Files: []uintptr{uintptr(spec.Files[0]), uintptr(spec.Files[1]), uintptr(spec.Files[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: spec.TTY, PidFD: &pidfd},
	}
	if spec.Group != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, spec.Group.fd()
	}
	begin := time.Now()
	pid, err := launch(path, spec.Argv, attr)
	if err != nil {
		return nil, startError(spec.Argv[0], err)
	}
	return &Process{pid: pid, pidfd: pollable(pidfd), start: begin, group: spec.Group}, nil
}

// pollable makes a file of a process descriptor, on which Go's poller can wait; nil when the kernel gives none.
func pollable(pidfd int) *os.File {
	if pidfd < 0 || unix.SetNonblock(pidfd, true) != nil {
		return nil
	}
	return os.NewFile(uintptr(pidfd), "pidfd")
}

func errnoOf(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// PID is the process id of the command itself.
func (p *Process) PID() int { return p.pid }

// Wait waits until the command itself has ended, reaps it and says how it ended. It is called once.
func (p *Process) Wait() proto.ExitStatus {
	p.await()
	p.mu.Lock()
	var ws unix.WaitStatus
	_, err := unix.Wait4(p.pid, &ws, 0, nil)
	took := time.Since(p.start)
	p.reaped = true
	p.mu.Unlock()
	if p.pidfd != nil {
		_ = p.pidfd.Close() // nothing was written
	}
	p.group.Release()
	status := statusOf(ws, err)
	status.DurationUS = took.Microseconds()
	return status
}

// await waits for the end without reaping, so that Signal never meets a process id that is somebody else's by then. With
// a process descriptor no thread is held up.
func (p *Process) await() {
	if p.pidfd != nil {
		raw, err := p.pidfd.SyscallConn()
		if err == nil && raw.Read(func(uintptr) bool { return p.ended(unix.WNOHANG) }) == nil {
			return
		}
	}
	for !p.ended(0) {
	}
}

// ended reports whether the command has ended; without WNOHANG it waits for that, or for a signal to this process.
func (p *Process) ended(flags int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, p.pid, &info, unix.WEXITED|unix.WNOWAIT|flags, nil)
	return (err == nil && info.Signo != 0) || errors.Is(err, unix.ECHILD)
}

func statusOf(ws unix.WaitStatus, err error) proto.ExitStatus {
	switch {
	case err != nil:
		return proto.ExitStatus{Code: CodeCannotRun, Error: "the command's end was lost: " + err.Error()}
	case ws.Signaled():
		return proto.ExitStatus{Code: 128 + int(ws.Signal()), Signal: signalName(ws.Signal())}
	}
	return proto.ExitStatus{Code: ws.ExitStatus()}
}

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return "SIG" + strconv.Itoa(int(s))
}

// Signal sends a signal to the command's process group; KILL goes to everything it started. Nothing is sent once the
// command itself has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	if sig == unix.SIGKILL {
		return p.killAll()
	}
	if err := unix.Kill(-p.pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process group: %w", err)
	}
	return nil
}

// Kill ends the command and everything it started.
func (p *Process) Kill() error { return p.Signal(unix.SIGKILL) }

// killAll is called with mu held and the command not yet reaped.
func (p *Process) killAll() error {
	if p.group.kill() == nil {
		return nil
	}
	for _, pgid := range groupsOfSession(p.pid) {
		if err := unix.Kill(-pgid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process group: %w", err)
		}
	}
	return nil
}
