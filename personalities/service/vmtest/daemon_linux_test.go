//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/assets/assetstest"
	"capsem/core/client"
	"capsem/core/guard"
	"capsem/core/paths"
)

// daemon is the service of one home, started by its client like any user's.
type daemon struct {
	*client.Client
	t    *testing.T
	home paths.Home
}

func start(t *testing.T) *daemon {
	t.Helper()
	home := assetstest.Home(t)
	settings := "[vm.resources]\ncpu_count = 1\nram_mb = 512\n"
	if err := os.WriteFile(home.UserConfig(), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{client.New(home, client.Options{Executable: self}), t, home}
	t.Cleanup(d.killAll)
	d.ensure()
	return d
}

func (d *daemon) ensure() {
	d.t.Helper()
	if err := d.EnsureService(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

// killAll leaves no process behind, whatever the test has done.
func (d *daemon) killAll() {
	locks, _ := filepath.Glob(filepath.Join(d.home.Instances(), "*.lock"))
	for _, path := range append(locks, d.home.ServiceLock()) {
		if pid, held, err := guard.Holder(path); err == nil && held && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// kill ends a process and waits until it does nothing more.
func (d *daemon) kill(pid int) {
	d.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		d.t.Fatal(err)
	}
	d.await("the end of process "+strconv.Itoa(pid), func() bool { return !runs(pid) })
}

// runs reports whether a process is there and no mere zombie.
func runs(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

func (d *daemon) await(what string, ok func() bool) {
	d.t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			d.t.Fatalf("never came: %s", what)
		}
	}
}

func (d *daemon) provision(name string) string {
	d.t.Helper()
	vm, err := d.Provision(d.t.Context(), api.ProvisionRequest{Name: name})
	if err != nil {
		d.t.Fatal(err)
	}
	return vm.ID
}

func (d *daemon) info(id string) api.SandboxInfo {
	d.t.Helper()
	vm, err := d.Info(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return vm
}

// says checks what a command prints.
func (d *daemon) says(id, command, want string) {
	d.t.Helper()
	r, err := d.Exec(d.t.Context(), id, api.ExecRequest{Command: command})
	if err != nil || r.Stdout != want || r.ExitCode != 0 {
		d.t.Errorf("%s: %s: %+v, %v", id, command, r, err)
	}
}
