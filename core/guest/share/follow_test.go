//go:build linux

package share

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheProcessorIsFoundWhateverTheProgramIsCalled(t *testing.T) {
	const rest = " S 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 100 200 300 400 500 600 700 800 900 0 0 0 0 0 0 0 17 3 0 0 0 0 0\n"
	for text, want := range map[string]int{
		"7 (python3)" + rest: 3, "7 (a) b) 1 2 3 ()" + rest: 3, "7 (x) S 1 2": -1, "": -1, ")": -1,
	} {
		if got := processorOf([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil || processorOf(own) < 0 || processorOf(own) > 4096 {
		t.Errorf("%q: %d, %v", own, processorOf(own), err)
	}
}

func TestTheInterruptsOfTheLinkAreFound(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"proc", "sys/class/virtio-ports"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text := "            CPU0       CPU1\n 24:  0  0  PCI-MSIX-0000:00:02.0   0-edge      virtio1-config\n" +
		" 25:  0  7  PCI-MSIX-0000:00:02.0   1-edge      virtio1-virtqueues\n 26:  1  2  PCI-MSIX-0000:00:03.0   1-edge      virtio10-req.0\n"
	if err := os.WriteFile(filepath.Join(root, "proc/interrupts"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := linkInterrupts(root); got != nil {
		t.Errorf("without a port: %v", got)
	}
	if err := os.Symlink("../../devices/pci0000:00/0000:00:02.0/virtio1/virtio-ports/vport1p1", filepath.Join(root, "sys/class/virtio-ports/vport1p1")); err != nil {
		t.Fatal(err)
	}
	if got := linkInterrupts(root); !slices.Equal(got, []string{"24", "25"}) {
		t.Errorf("found %v", got)
	}
}

func TestWhoHasFollowedMayRunAnywhere(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	f := &follower{on: true, steered: -1}
	for _, pid := range []int{os.Getpid(), 1, 1 << 30} {
		for range 2 * followEvery {
			f.saw(uint32(pid))
		}
	}
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Errorf("before %v, after %v, %v", before, after, err)
	}
}
