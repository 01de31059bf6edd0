//go:build vm

package vmtest

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/hypervisor"
)

// memory is a file of RAM without a name.
func memory(t *testing.T, mb int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "ram")
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(int64(mb) << 20); err != nil {
		t.Fatal(err)
	}
	return f
}

func copyOf(t *testing.T, f *os.File) *os.File {
	t.Helper()
	to, err := os.Create(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = to.Close() })
	if _, err := io.Copy(to, io.NewSectionReader(f, 0, 1<<40)); err != nil {
		t.Fatal(err)
	}
	return to
}

// saved boots a machine, does something in it and saves it into state; the machine is gone then.
func saved(t *testing.T, s hypervisor.Spec, do string) *os.File {
	t.Helper()
	m, g := boot(t, s)
	if out, err := g.run(t.Context(), do); err != nil || out != "done\n" {
		t.Fatalf("%q, %v", out, err)
	}
	state, err := os.Create(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close() })
	if err := g.Close(); err != nil {
		t.Log(err)
	}
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	saver, ok := m.(hypervisor.Saver)
	if !ok {
		t.Fatal("it cannot be saved")
	}
	if err := saver.Save(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info, err := state.Stat(); err != nil || info.Size() < 10_000 {
		t.Fatalf("the state: %+v, %v", info, err)
	} else {
		t.Logf("the state has %d bytes", info.Size())
	}
	return state
}

func again(t *testing.T, state *os.File) *os.File {
	t.Helper()
	f, err := os.Open(state.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestMachinesGoOnFromOneSavedStateEachForItself(t *testing.T) {
	s := spec(t)
	s.RAM, s.RAMShared = memory(t, s.MemoryMB), true
	state := saved(t, s, "(i=0; while :; do i=$((i+1)); echo $i > /run/count; sleep 0.02; done) > /dev/null 2>&1 & echo kept > /root/file; sync; echo done")
	if _, err := unix.FcntlInt(s.RAM.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		t.Fatal(err)
	}
	base := s.Disks[1].File
	seen := map[string]bool{}
	var guests []guest
	for range 2 {
		clone := s
		clone.RAMShared, clone.State = false, again(t, state)
		clone.Disks = []hypervisor.Disk{s.Disks[0], {File: copyOf(t, base), Format: hypervisor.Raw, Serial: "system"}}
		_, g := boot(t, clone)
		guests = append(guests, g)
	}
	for i, g := range guests {
		out, err := g.run(t.Context(), "cat /root/file; cat /proc/sys/kernel/random/uuid; a=$(cat /run/count); sleep 0.5; b=$(cat /run/count); [ $b -gt $a ] && echo counts; echo "+strings.Repeat("x", i+1)+" > /root/file; sync")
		lines := strings.Fields(out)
		if err != nil || len(lines) != 3 || lines[0] != "kept" || lines[2] != "counts" || seen[lines[1]] {
			t.Fatalf("clone %d says %q, %v", i, out, err)
		}
		seen[lines[1]] = true
	}
	for i, g := range guests {
		if out, err := g.run(t.Context(), "echo 3 > /proc/sys/vm/drop_caches; cat /root/file"); err != nil || out != strings.Repeat("x", i+1)+"\n" {
			t.Errorf("clone %d has %q, %v", i, out, err)
		}
	}
}

// A machine with private memory, as a clone is, is saved whole.
func TestAMachineWithPrivateMemoryIsSavedWhole(t *testing.T) {
	s := spec(t)
	state := saved(t, s, "echo kept > /run/file; echo done")
	s.State = again(t, state)
	_, g := boot(t, s)
	if out, err := g.run(t.Context(), "cat /run/file"); err != nil || out != "kept\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestAStateThatIsDamagedIsRefusedWithAReason(t *testing.T) {
	s := spec(t)
	state, err := os.Create(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	if _, err := state.WriteString(strings.Repeat("garbage", 1000)); err != nil {
		t.Fatal(err)
	}
	s.State = again(t, state)
	if _, err := boot0(t, s); err == nil || !strings.Contains(err.Error(), "migration") {
		t.Errorf("it is said: %v", err)
	}
}

func boot0(t *testing.T, s hypervisor.Spec) (hypervisor.Machine, error) {
	t.Helper()
	return driver(t).Driver.Create(t.Context(), s)
}
