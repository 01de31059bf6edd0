//go:build vm

package vmtest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"capsem/core/guestlink"
	"capsem/core/hypervisor"
	"capsem/core/hypervisor/qemu"
	"capsem/core/link"
	"capsem/core/proto"
)

// patience bounds every wait for the guest.
const patience = 2 * time.Minute

// vm is a running machine and the host's end of its link.
type vm struct {
	*guestlink.Agent

	machine hypervisor.Machine
	console string
	way     *way
	// asked are the lifecycle requests of the guest.
	asked chan proto.LifecycleRequest
}

// create makes and starts a machine on a system disk.
func create(ctx context.Context, t *testing.T, disk *os.File) *vm {
	t.Helper()
	kernel, initrd, rootfs, rootType := image(ctx, t)
	v := &vm{way: newWay(t), console: filepath.Join(t.TempDir(), "console"), asked: make(chan proto.LifecycleRequest, 8)}
	console, err := os.Create(v.console)
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	v.machine, err = qemu.New(qemu.Options{}).Create(ctx, hypervisor.Spec{
		Name: "guest", Arch: runtime.GOARCH, CPUs: 2, MemoryMB: 512, Accelerator: hypervisor.TCG,
		Kernel: kernel, Initrd: initrd, Console: console,
		Cmdline: "quiet loglevel=4 panic=-1 capsem.vsock capsem.rootfs=" + rootType,
		Disks: []hypervisor.Disk{
			{File: rootfs, Format: hypervisor.Raw, ReadOnly: true, Serial: "root"}, {File: disk, Format: hypervisor.Raw, Serial: "system"},
		},
		UID: 64000002, GID: 64000002,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := v.machine.Kill(ctx); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(v.console); err == nil && t.Failed() {
			t.Logf("console:\n%s", text)
		}
	})
	if err := v.machine.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return v
}

// attach begins a link session with the guest.
func (v *vm) attach(ctx context.Context, t *testing.T) {
	t.Helper()
	carrier, err := v.machine.Carrier(ctx)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	session, err := link.Connect(ctx, carrier, log)
	if err != nil {
		t.Fatal(err)
	}
	v.Agent, err = guestlink.Attach(ctx, session, guestlink.Config{
		Log: log,
		Boot: proto.BootConfig{
			ID: "vm-1", Name: "box", Hostname: "box", EpochNS: time.Now().UnixNano(), MachineID: strings.Repeat("0a", 16),
			Entropy: make([]byte, 64), Env: map[string]string{"FROM_HOST": "yes"},
			CA: v.way.ca.CertPEM(),
		},
		Services: v.way.services(),
		Files:    []proto.FileWrite{{Path: "/etc/from-host", Mode: 0o640, Data: []byte("placed\n")}},
		OnLifecycle: func(r proto.LifecycleRequest) proto.LifecycleReply {
			v.asked <- r
			if r.Action == proto.ActionSuspend {
				return proto.LifecycleReply{Message: "this VM has no name"}
			}
			return proto.LifecycleReply{OK: true}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// newDisk makes an empty system disk, which the guest formats.
func newDisk(t *testing.T) *os.File {
	t.Helper()
	disk, err := os.Create(filepath.Join(t.TempDir(), "system"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	if err := disk.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	return disk
}

// ended waits for the end of the machine.
func (v *vm) ended(ctx context.Context, t *testing.T, want hypervisor.ExitReason) {
	t.Helper()
	exit, err := v.machine.Wait(ctx)
	if err != nil || exit.Reason != want {
		t.Errorf("the machine ended as %+v, %v; want %s", exit, err, want)
	}
	_ = v.Close() // gone with the machine
}
