package qemu

import (
	"log/slog"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/hypervisor"
)

// ended is a machine whose process has ended by itself and been reaped.
func ended(t *testing.T) *machine {
	t.Helper()
	ours, theirs, err := sockets()
	if err != nil {
		t.Fatal(err)
	}
	closeAll(theirs.all())
	m := &machine{log: slog.New(slog.DiscardHandler), dying: make(chan struct{}), down: make(chan struct{}), monitor: newMonitor(ours[0]), link: newLinkPort(ours[2])}
	close(m.monitor.events)
	m.cmd = exec.CommandContext(t.Context(), "/bin/true")
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.supervise(ours[1], nil)
	return m
}

// The number of a process that has been reaped belongs to whoever comes next.
func TestKillOfAMachineThatIsDownHitsNobodyElse(t *testing.T) {
	m := ended(t)
	other := exec.CommandContext(t.Context(), "/bin/sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	m.cmd.Process.Pid = other.Process.Pid // as if the kernel had given the number away
	if err := m.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if err := other.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := other.Wait()
	status, ok := other.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != unix.SIGTERM {
		t.Errorf("another process was killed: %v", err)
	}
	if exit, err := m.Wait(t.Context()); err != nil || exit.Reason != hypervisor.Crashed {
		t.Errorf("it ended as %+v, %v", exit, err)
	}
}
