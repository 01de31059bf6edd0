package image

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"capsem/core/paths"
)

// unwritten reports whether a file's content has no place on the disk yet (FIEMAP).
func unwritten(t *testing.T, name string) bool {
	t.Helper()
	const fiemap, head, extent, count, delayed = 0xC020660B, 32, 56, 16, 4
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	b := make([]byte, head+count*extent)
	binary.NativeEndian.PutUint64(b[8:], ^uint64(0))
	binary.NativeEndian.PutUint32(b[24:], count)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fiemap, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		t.Skip("this file system does not tell what is on the disk:", errno)
	}
	for i := range binary.NativeEndian.Uint32(b[20:]) {
		if binary.NativeEndian.Uint32(b[head+i*extent+40:])&delayed != 0 {
			return true
		}
	}
	return false
}

func TestAllOfAnImageIsOnTheDiskWhenItHasItsName(t *testing.T) {
	home, vm := paths.Home(t.TempDir()), stopped(t)
	large := filepath.Join("sub", "large")
	must(t, os.WriteFile(filepath.Join(vm.Workspace(), large), make([]byte, 1<<20), 0o600))
	if !unwritten(t, filepath.Join(vm.Workspace(), large)) {
		t.Skip("this file system writes everything at once")
	}
	dir, err := Images(home).Begin("base")
	must(t, err)
	must(t, CopyVM(vm, dir))
	i, err := Finish(dir, Manifest{Name: "base", AssetVersion: "v", CPUs: 1, MemoryMB: 256, DiskMB: 1024})
	must(t, err)
	to := t.TempDir()
	must(t, i.Place(to, true))
	must(t, i.Stage(vm))
	for what, dir := range map[string]string{"an image": i.Dir, "a VM of it": to, "what a VM is rewound to": vm.Rewind() + newSuffix} {
		if unwritten(t, filepath.Join(dir, workspace, large)) {
			t.Errorf("the workspace of %s may be lost", what)
		}
	}
}
