//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk is a filesystem of its own with so little room that a guest can fill it; grow gives it more.
func smallDisk(t *testing.T) (dir string, grow func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small filesystem to fill")
	}
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, func() {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=1g"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFullDiskOfTheHostHoldsTheMachineUntilThereIsRoom(t *testing.T) {
	dir, grow := smallDisk(t)
	s := spec(t)
	disk, err := os.Create(filepath.Join(dir, "system"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := disk.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	s.Disks[1].File = disk
	stalls := make(chan string, 100)
	s.OnStall = func(why string) { stalls <- why }
	m, g := boot(t, s)
	output := make(chan string, 1)
	go func() {
		out, err := g.run(t.Context(), "head -c 100000000 /dev/urandom > /root/big && sync && sha256sum < /root/big > /root/sum && echo 3 > /proc/sys/vm/drop_caches && sha256sum < /root/big | cmp - /root/sum && echo same")
		if err != nil {
			t.Error(err)
		}
		output <- out
	}()
	wait := func(what string, ch <-chan string) string {
		select {
		case got := <-ch:
			return got
		case <-time.After(3 * time.Minute):
			t.Fatalf("no %s", what)
			return ""
		}
	}
	if why := wait("stall", stalls); why != "the host's disk is full" {
		t.Fatalf("it stands still: %q", why)
	}
	// A pause wins over the wait for room.
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	grow()
	select {
	case why := <-stalls:
		t.Errorf("a paused machine goes on: %q", why)
	case <-time.After(5 * time.Second):
	}
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if why := wait("end of the stall", stalls); why != "" {
		t.Errorf("it stands still: %q", why)
	}
	if out := wait("end of the command", output); out != "same\n" {
		t.Errorf("the guest reads back: %q", out)
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}
