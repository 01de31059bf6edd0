//go:build vm

package vmtest

import (
	"os"
	"runtime"
	"testing"

	"capsem/core/hypervisor"
	"capsem/core/hypervisor/hypervisortest"
	"capsem/core/hypervisor/qemu"
)

func spec(t *testing.T) hypervisor.Spec {
	t.Helper()
	open := func(name string) *os.File {
		f, err := os.Open("/tmp/guest-img/" + name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	disk, err := os.Create(t.TempDir() + "/system")
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	return hypervisor.Spec{
		Name: "contract", Arch: runtime.GOARCH, CPUs: 1, MemoryMB: 512, Accelerator: hypervisor.TCG,
		Kernel: open("vmlinuz"), Initrd: open("initrd.img"), Cmdline: "quiet loglevel=4 panic=-1 capsem.rootfs=squashfs",
		Disks: []hypervisor.Disk{
			{File: open("rootfs.squashfs"), Format: hypervisor.Raw, ReadOnly: true, Serial: "root"},
			{File: disk, Format: hypervisor.Raw, Serial: "system"},
		},
		UID: 64000001, GID: 64000001,
	}
}

func TestContract(t *testing.T) {
	hypervisortest.Contract(t, func(*testing.T) hypervisortest.Driver {
		return hypervisortest.Driver{Driver: qemu.New(qemu.Options{}), Spec: spec, Attach: attach}
	})
}
