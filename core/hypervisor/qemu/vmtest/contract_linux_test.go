//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/assets"
	"capsem/core/assets/assetstest"
	"capsem/core/hypervisor"
	"capsem/core/hypervisor/hypervisortest"
	"capsem/core/hypervisor/qemu"
)

// testUID is a user that owns nothing.
const testUID = 64000999

// uid is who QEMU runs as: root may choose.
func uid() uint32 {
	if os.Geteuid() == 0 {
		return testUID
	}
	return 0
}

// spec is a machine with the minimal image and an empty disk, which the guest formats.
func spec(t *testing.T) hypervisor.Spec {
	t.Helper()
	set, err := assetstest.Prepare(t.Context(), assetstest.Minimal, nil)
	if err != nil {
		t.Fatal(err)
	}
	return specOf(t, set)
}

func specOf(t *testing.T, set *assets.Set) hypervisor.Spec {
	t.Helper()
	o, err := set.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	disk, err := os.Create(filepath.Join(t.TempDir(), "system"))
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = o.Close(), disk.Close() })
	return hypervisor.Spec{
		Name: "contract", Arch: runtime.GOARCH, CPUs: 1, MemoryMB: 512, Accelerator: hypervisor.TCG,
		Kernel: o.Kernel, Initrd: o.Initrd, Cmdline: "quiet loglevel=4 panic=-1 capsem.rootfs=" + set.RootFSType(),
		Disks: []hypervisor.Disk{
			{File: o.RootFS, Format: hypervisor.Raw, ReadOnly: true, Serial: "root"},
			{File: disk, Format: hypervisor.Raw, Serial: "system"},
		},
		UID: uid(), GID: uid(),
	}
}

func driver(*testing.T) hypervisortest.Driver {
	return hypervisortest.Driver{Driver: qemu.New(qemu.Options{}), Spec: spec, Attach: attach}
}

func TestContract(t *testing.T) { hypervisortest.Contract(t, driver) }

// boot starts a machine and waits for its guest.
func boot(t *testing.T, s hypervisor.Spec) (hypervisor.Machine, guest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	m, err := qemu.New(qemu.Options{}).Create(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Kill(context.WithoutCancel(t.Context())) })
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	carrier, err := m.Carrier(ctx)
	if err != nil {
		t.Fatal(err)
	}
	g, ok := attach(ctx, t, carrier).(guest)
	if !ok {
		t.Fatal("no guest")
	}
	return m, g
}

// One machine shows how it is locked in, that a flood on the console ends somewhere, and how it looks when QEMU is killed.
func TestQEMUIsLockedInAndItsDeathIsACrash(t *testing.T) {
	s := spec(t)
	console, err := os.Create(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	s.Console = console
	m, g := boot(t, s)
	proc := fmt.Sprintf("/proc/%d/", m.Info().PID)
	if env, err := os.ReadFile(proc + "environ"); err != nil || len(env) != 0 {
		t.Errorf("QEMU's environment is %q (%v)", env, err)
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Seccomp:\t2", "NoNewPrivs:\t1"}
	if uid() != 0 {
		want = append(want, "Uid:\t64000999\t64000999", "Gid:\t64000999\t64000999", "CapEff:\t0000000000000000", "Groups:\t \n")
	}
	for _, w := range want {
		if !strings.Contains(string(status), w) {
			t.Errorf("QEMU's status lacks %q", w)
		}
	}
	if out, err := g.run(t.Context(), "ls /sys/class/net; ls /sys/bus/pci/devices | wc -l"); err != nil || !strings.HasPrefix(out, "dummy0\nlo\n") {
		t.Errorf("network devices: %q (%v)", out, err)
	}
	if _, err := g.run(t.Context(), "head -c 8000000 /dev/zero | tr '\\0' x > /dev/console"); err != nil {
		t.Errorf("flooding the console: %v", err)
	}
	if info, err := console.Stat(); err != nil || info.Size() > hypervisor.ConsoleLimit+1024 || info.Size() < hypervisor.ConsoleLimit/2 {
		t.Errorf("the console's log has %d bytes (%v)", info.Size(), err)
	}
	if err := unix.Kill(m.Info().PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit, err := m.Wait(t.Context()); err != nil || exit.Reason != hypervisor.Crashed || !strings.Contains(exit.Detail, "killed") {
		t.Errorf("it ended as %+v, %v", exit, err)
	}
	_ = g.Close() // gone with the machine
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestMachinesLeaveNoFilesOrProcessesBehind(t *testing.T) {
	set, err := assetstest.Prepare(t.Context(), assetstest.Minimal, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := specOf(t, set)
	once := func() int {
		m, err := qemu.New(qemu.Options{}).Create(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		pid := m.Info().PID
		if err := m.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(pid, 0); err == nil {
			t.Error("QEMU is still there after Kill")
		}
		return openFiles(t)
	}
	first := once()
	for range 3 {
		if now := once(); now > first {
			t.Errorf("%d files are open, %d after the first machine", now, first)
		}
	}
}

// A bad option makes QEMU end at once; what it says must reach the caller.
func TestWhatQEMUComplainsAboutIsSaid(t *testing.T) {
	s := spec(t)
	s.Cmdline = strings.Repeat("x", 1<<20)
	s.MemoryMB = 1 << 40
	_, err := qemu.New(qemu.Options{}).Create(t.Context(), s)
	if err == nil || (!strings.Contains(err.Error(), "memory") && !strings.Contains(err.Error(), "-m") && !strings.Contains(err.Error(), "long")) {
		t.Errorf("got %v", err)
	}
}

const (
	parentEnv = "CAPSEM_TEST_PARENT"
	pidFD     = 3
)

// TestMain lets this binary be a worker that starts a machine and then does nothing until it is killed.
func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) == "" {
		os.Exit(m.Run())
	}
	os.Exit(parent())
}

func parent() int {
	ctx := context.Background()
	set, err := assetstest.Prepare(ctx, assetstest.Minimal, nil)
	if err != nil {
		return 1
	}
	o, err := set.Open(ctx)
	if err != nil {
		return 2
	}
	machine, err := qemu.New(qemu.Options{}).Create(ctx, hypervisor.Spec{
		Name: "orphan", Arch: runtime.GOARCH, CPUs: 1, MemoryMB: 256, Accelerator: hypervisor.TCG, Kernel: o.Kernel, Initrd: o.Initrd, UID: uid(), GID: uid(),
	})
	if err != nil {
		return 3
	}
	fmt.Fprintln(os.NewFile(pidFD, "pid"), strconv.Itoa(machine.Info().PID))
	select {}
}
