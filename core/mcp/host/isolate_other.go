//go:build !linux

package host

import (
	"os/exec"
	"syscall"
)

// isolate gives a child a group of its own. It ends when its input does, as it does when the worker dies.
func isolate(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
