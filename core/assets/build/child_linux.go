package build

import "syscall"

// childAttr gives a tool a process group of its own, and ends the tool when this process dies: a build that is killed leaves
// nothing running.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
