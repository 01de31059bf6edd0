package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capsem/core/hypervisor"
	"capsem/core/paths"
)

func newVM(t *testing.T, dir string) paths.VM {
	t.Helper()
	vm := paths.VM(filepath.Join(dir, "vm"))
	if err := os.Mkdir(vm.Dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestANewDiskIsFormattedSparseAndKept(t *testing.T) {
	home, vm := paths.Home(t.TempDir()), newVM(t, t.TempDir())
	f, err := Open(t.Context(), home, vm, 2048, hypervisor.QCOW2)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := exec.CommandContext(t.Context(), "qemu-img", "info", vm.SystemDisk()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "2 GiB") || !strings.Contains(string(out), "qcow2") || strings.Contains(string(out), "backing") {
		t.Errorf("%v: %s", err, out)
	}
	if info, err := f.Stat(); err != nil || info.Size() > 64<<20 || info.Mode().Perm() != 0o600 {
		t.Errorf("an empty disk takes %d bytes, mode %v (%v)", info.Size(), info.Mode(), err)
	}
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "check", vm.SystemDisk()).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	raw := filepath.Join(t.TempDir(), "raw")
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-O", "raw", vm.SystemDisk(), raw).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "/sbin/e2fsck", "-fn", raw).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := f.WriteAt([]byte("mark"), 60); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), home, vm, 4096, hypervisor.QCOW2)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	mark := make([]byte, 4)
	if _, err := again.ReadAt(mark, 60); err != nil || !bytes.Equal(mark, []byte("mark")) {
		t.Errorf("a disk that was there was replaced (%v)", err)
	}
	left, err := filepath.Glob(filepath.Join(home.Templates(), "disks", ".new-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

func TestARawDiskIsEmptyAndSparse(t *testing.T) {
	vm := newVM(t, t.TempDir())
	f, err := Open(t.Context(), paths.Home(t.TempDir()), vm, 1024, hypervisor.Raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != 1<<30 || filepath.Base(f.Name()) == "system.qcow2" {
		t.Errorf("%s: %v %v", f.Name(), info, err)
	}
}

func TestASymlinkIsNoDisk(t *testing.T) {
	vm := newVM(t, t.TempDir())
	if err := os.Symlink("/etc/hostname", vm.SystemDisk()); err != nil {
		t.Fatal(err)
	}
	if f, err := Open(t.Context(), paths.Home(t.TempDir()), vm, 1024, hypervisor.QCOW2); err == nil {
		_ = f.Close()
		t.Error("a symlink was opened")
	}
}

func TestADiskThatAPowerLossEmptiedIsMadeAgain(t *testing.T) {
	home, vm := paths.Home(t.TempDir()), newVM(t, t.TempDir())
	if err := os.WriteFile(vm.SystemDisk(), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(home.Templates(), "disks", ".new-old")
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * abandoned)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	f, err := Open(t.Context(), home, vm, 1024, hypervisor.QCOW2)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if blank(f) {
		t.Error("the disk is still empty")
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("what an old worker left is still there: %v", err)
	}
}
