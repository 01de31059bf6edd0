//go:build vm

package vmtest

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/lifecycle"
)

// TestWhatQEMURefusesIsSaidAndLosesNothing has QEMU not get the lock of a disk, and not take a state, and kills whoever takes part in
// a resume.
func TestWhatQEMURefusesIsSaidAndLosesNothing(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1", "--cold")
	in.ok("exec", "vm", "echo safe > /root/safe; sync; echo here > /run/memory")
	dir := in.home.Persistent("vm").Dir()

	in.ok("suspend", "vm")
	unlock := lockDisk(t, filepath.Join(dir, "system.qcow2"))
	in.want(1, "", "lock", "resume", "vm")
	if vm := in.info("vm"); lifecycle.Live(vm.Status) {
		t.Errorf("a VM whose disk is in use is %s", vm.Status)
	}
	unlock()
	in.ok("resume", "vm")
	in.want(0, "here\n", "", "exec", "vm", "cat /run/memory")

	in.ok("stop", "vm")
	unlock = lockDisk(t, filepath.Join(dir, "system.qcow2"))
	in.want(1, "", "lock", "resume", "vm")
	unlock()
	in.ok("resume", "vm")
	in.ok("exec", "vm", "echo here > /run/memory")

	for _, victim := range []string{"service", "worker", "qemu"} {
		killedInResume(in, dir, victim)
	}

	in.ok("suspend", "vm")
	spoil(t, filepath.Join(dir, "suspended"))
	in.want(1, "", "capsem resume --cold vm", "resume", "vm")
	in.ok("resume", "--cold", "vm")
	in.want(0, "safe\n", "", "exec", "vm", "cat /root/safe; test ! -e /run/memory")
	in.clean("a state that QEMU refused", dir)
}

// lockDisk does to a disk image what another QEMU that uses it does.
func lockDisk(t *testing.T, path string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	const permissions, shared, length = 100, 200, 100
	for _, start := range []int64{permissions, shared} {
		lock := unix.Flock_t{Type: unix.F_RDLCK, Start: start, Len: length}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
			t.Fatal(err)
		}
	}
	return func() { f.Close() }
}

// killedInResume kills somebody once the worker of a resume is there: the memory or at least the disk is as it was.
func killedInResume(in *install, dir, victim string) {
	in.t.Helper()
	in.ok("suspend", "vm")
	cmd := in.command(in.t.Context(), "resume", "vm")
	if err := cmd.Start(); err != nil {
		in.t.Fatal(err)
	}
	var vm api.SandboxInfo
	in.until("the middle of a resume", func() bool {
		vm = in.info("vm")
		return vm.PID != 0 && (victim != "qemu" || vm.HypervisorPID != 0)
	})
	switch victim {
	case "service":
		in.killService()
	case "worker":
		_ = syscall.Kill(vm.PID, syscall.SIGKILL) // it is there, or has failed
	case "qemu":
		_ = syscall.Kill(vm.HypervisorPID, syscall.SIGKILL) // as above
	}
	_ = cmd.Wait() // either is right
	in.until("an end", func() bool {
		s := in.info("vm").Status
		return !lifecycle.Live(s) || s == lifecycle.Running
	})
	in.ok("resume", "vm")
	in.want(0, "safe\n", "", "exec", "vm", "cat /root/safe")
	if victim == "service" {
		in.want(0, "here\n", "", "exec", "vm", "cat /run/memory") // it was none of its business
	}
	in.clean(victim+" killed in a resume", dir)
	in.ok("exec", "vm", "echo here > /run/memory")
}

// spoil changes a saved state so that its hash still fits: only QEMU can notice.
func spoil(t *testing.T, dir string) {
	t.Helper()
	state, err := os.ReadFile(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	state = state[:len(state)/2]
	hash := blake3.Sum256(state)
	var manifest map[string]any
	path := filepath.Join(dir, "checkpoint.json")
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &manifest)
	}
	if err != nil || !strings.Contains(string(text), "blake3") {
		t.Fatal(err, string(text))
	}
	manifest["blake3"], manifest["size"] = hex.EncodeToString(hash[:]), len(state)
	text, err = json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"state": state, "checkpoint.json": text} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
