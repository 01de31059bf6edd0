package host

import (
	"os/exec"
	"syscall"
)

// isolate gives a child a group of its own, and has it die with the worker.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
