//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"capsem/core/api"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/template"
)

// TestADeathInTheMiddleOfSavingLosesNothing kills whoever takes part while a VM is forked, suspended or rewound.
func TestADeathInTheMiddleOfSavingLosesNothing(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1")
	in.ok("exec", "vm", "echo safe > /root/safe; sync")
	in.ok("checkpoint", "vm", "point")
	dir := in.home.Persistent("vm").Dir()
	saving := func(dir string) func(api.SandboxInfo) bool {
		return func(api.SandboxInfo) bool {
			info, err := os.Stat(filepath.Join(dir, "suspended.new", "state"))
			return err == nil && info.Size() > 1<<20
		}
	}
	for _, c := range []struct {
		victims string
		args    []string
		begun   func(before api.SandboxInfo) bool
	}{
		{"service worker qemu", []string{"fork", "vm", "image"}, saving(filepath.Join(in.home.Images(), "image.new"))},
		{"service qemu", []string{"suspend", "vm"}, saving(dir)},
		{"service", []string{"rewind", "vm", "point"}, func(before api.SandboxInfo) bool { return syscall.Kill(before.PID, 0) != nil }},
		{"worker qemu", []string{"rewind", "vm", "point"}, func(before api.SandboxInfo) bool {
			copies, _ := filepath.Glob(filepath.Join(dir, "rewind*"))
			return len(copies) > 0 || syscall.Kill(before.PID, 0) != nil
		}},
	} {
		for victim := range strings.FieldsSeq(c.victims) {
			in.ok("exec", "vm", "echo here > /run/memory; head -c 150000000 /dev/urandom > /dev/shm/x")
			in.interrupted(victim, c.begun, c.args...)
			in.until("an end", func() bool {
				s := in.info("vm").Status
				return !lifecycle.Live(s) || s == lifecycle.Running
			})
			in.ok("resume", "vm")
			in.want(0, "safe\n", "", "exec", "vm", "cat /root/safe")
			if c.args[0] == "fork" && victim == "service" {
				in.want(0, "here\n", "", "exec", "vm", "cat /run/memory") // it was none of its business
			}
			in.clean(victim+" killed in "+c.args[0], dir, in.home.Images())
		}
	}
	in.want(0, "", "", "image", "list", "-q")
	atOnce(in)
}

// interrupted begins a command, kills somebody in the middle of it, and waits for its end, whatever that is.
func (in *install) interrupted(victim string, begun func(before api.SandboxInfo) bool, args ...string) {
	in.t.Helper()
	vm := in.info("vm")
	cmd := in.command(in.t.Context(), args...)
	if err := cmd.Start(); err != nil {
		in.t.Fatal(err)
	}
	in.until("the middle of "+args[0], func() bool { return begun(vm) })
	switch victim {
	case "service":
		in.killService()
	case "worker":
		_ = syscall.Kill(vm.PID, syscall.SIGKILL) // the VM may have ended
	case "qemu":
		_ = syscall.Kill(vm.HypervisorPID, syscall.SIGKILL) // as above
	}
	_ = cmd.Wait() // either is right
}

// clean checks that nothing half-made is left.
func (in *install) clean(what string, dirs ...string) {
	in.t.Helper()
	for _, dir := range dirs {
		for _, mark := range []string{"*.new", "*.used", "*.gone", "rewind"} {
			if left, _ := filepath.Glob(filepath.Join(dir, mark)); len(left) != 0 {
				in.t.Errorf("%s: left %v", what, left)
			}
		}
	}
}

// atOnce does several things to one VM at the same time: they take turns.
func atOnce(in *install) {
	in.t.Helper()
	in.ok("exec", "vm", "echo here > /run/memory")
	done := make(chan result, 3)
	for _, args := range [][]string{{"fork", "vm", "a"}, {"fork", "vm", "b"}, {"suspend", "vm"}} {
		go func() { done <- in.capsem("", args...) }()
	}
	for range cap(done) {
		if r := <-done; r.code != 0 {
			in.t.Errorf("at once: %+v", r)
		}
	}
	for _, image := range []string{"a", "b"} {
		in.want(0, "safe\nhere\n", "", "run", "--image", image, "cat /root/safe /run/memory")
	}
	in.ok("resume", "vm")
	in.want(0, "here\n", "", "exec", "vm", "cat /run/memory")
}

// TestAFullDiskStopsNoVMThatIsSaved fills the disk under all that is written.
func TestAFullDiskStopsNoVMThatIsSaved(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	home := newHomeWithImage(t)
	small := smallDisk(t, home)
	in := newInstall(t, home)
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1", "--cold")
	in.ok("exec", "vm", "echo safe > /root/safe; sync; echo here > /run/memory; head -c 60000000 /dev/urandom > /dev/shm/x")
	in.ok("checkpoint", "vm", "point")
	filler := filepath.Join(small, "filler")
	fillBut(t, filler, 20<<20)
	for _, args := range [][]string{{"fork", "vm", "image"}, {"checkpoint", "vm", "other"}, {"suspend", "vm"}} {
		in.want(1, "", "no space left", args...)
		in.want(0, "here\n", "", "exec", "vm", "cat /run/memory")
		in.clean(args[0]+" on a full disk", in.home.Persistent("vm").Dir(), in.home.Persistent("vm").Checkpoints(), in.home.Images())
	}
	fillBut(t, filler+"2", 1<<20)
	in.want(1, "", "no space left", "rewind", "vm", "point")
	in.clean("rewind on a full disk", in.home.Persistent("vm").Dir())
	if err := os.Remove(filler + "2"); err != nil {
		t.Fatal(err)
	}
	in.want(0, "here\n", "", "exec", "vm", "cat /run/memory")
	if r := in.capsem("", "templates", "rebuild", "--ram", "512M", "--cpu", "1"); r.code != 1 || !strings.Contains(r.stderr, "pace") {
		t.Errorf("a template on a full disk: %+v", r)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	in.ok("rewind", "vm", "point")
	in.want(0, "here\n", "", "exec", "vm", "cat /run/memory")
	in.ok("suspend", "vm")
	in.ok("resume", "vm")
	in.want(0, "here\n", "", "exec", "vm", "cat /run/memory")
}

// smallDisk puts what is saved on a small disk, by a bind mount of each place.
func smallDisk(t *testing.T, home paths.Home) (small string) {
	t.Helper()
	small = t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "mode=0700,size=700m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for _, dir := range []string{home.Images(), home.PersistentDir(), template.Dir(home)} {
		from := filepath.Join(small, filepath.Base(dir))
		for _, d := range []string{dir, from} {
			if err := os.MkdirAll(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Mount(from, dir, "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	return small
}

// fillBut fills a disk until only so much is left.
func fillBut(t *testing.T, path string, left uint64) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := st.Bavail*uint64(st.Bsize) - left; size > 0; {
		n, err := f.Write(make([]byte, min(size, 1<<20)))
		if err != nil {
			t.Fatal(err)
		}
		size -= uint64(n)
	}
}
