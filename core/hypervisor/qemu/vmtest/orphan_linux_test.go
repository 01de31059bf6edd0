//go:build vm

package vmtest

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A worker that is killed takes its QEMU along within a second.
func TestQEMUDoesNotOutliveWhoStartedIt(t *testing.T) {
	spec(t) // makes sure of the image, so that the parent has no need to
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), parentEnv+"=1")
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // the parent has its own
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("the parent started nothing: %v, %v", err, cmd.Wait())
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Second.Milliseconds())); err != nil || n != 1 {
		_ = unix.Kill(pid, unix.SIGKILL)
		t.Errorf("QEMU is still there a second after its worker (%v)", err)
	}
}
