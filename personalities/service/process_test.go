package service

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/guard"
	"capsem/core/paths"
	"capsem/core/service/servicetest"
)

// daemon is one process that is a service.
type daemon struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    bytes.Buffer
	ended  chan struct{}
	result error
}

// start starts a daemon; version is what it says it is.
func start(t *testing.T, home paths.Home, version string) *daemon {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, cmd: exec.Command(self), ended: make(chan struct{})}
	d.cmd.Args = []string{"capsem-service"}
	d.cmd.Env = []string{"CAPSEM_HOME=" + home.Dir(), "LANG=" + version}
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.out
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.result = d.cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.ended
	})
	return d
}

// code waits for the end and returns the exit code.
func (d *daemon) code() int {
	d.t.Helper()
	<-d.ended
	if exit, ok := errors.AsType[*exec.ExitError](d.result); ok {
		return exit.ExitCode()
	}
	return 0
}

// up waits until the service of a home answers.
func up(t *testing.T, home paths.Home) (*client.Client, api.VersionReply) {
	t.Helper()
	c := client.New(home, client.Options{})
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		v, err := c.Version(t.Context())
		if err == nil {
			return c, v
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("no service: %v", err)
		}
	}
}

func TestKilledServiceLeavesItsVMsAndTheNextHasThemAll(t *testing.T) {
	home := servicetest.Home(t)
	first := start(t, home, "")
	c, _ := up(t, home)
	var ids []string
	for _, name := range []string{"dev", "", ""} {
		vm, err := c.Provision(t.Context(), api.ProvisionRequest{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, vm.ID)
	}
	if _, err := c.Exec(t.Context(), "dev", api.ExecRequest{Command: "hang", Detach: true}); err != nil {
		t.Fatal(err)
	}
	before, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.code()
	// One of the workers dies while nobody looks.
	pid, _, err := guard.Holder(home.InstanceLock(ids[2]))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	start(t, home, "")
	c, v := up(t, home)
	after, err := c.List(t.Context())
	if err != nil || len(after.Sandboxes) != 2 {
		t.Fatalf("%+v, %v", after, err)
	}
	for i, vm := range after.Sandboxes {
		if was := before.Sandboxes[i]; vm.ID != was.ID || vm.PID != was.PID || vm.Status != was.Status {
			t.Errorf("was %+v, is %+v", was, vm)
		}
	}
	if jobs, err := c.Jobs(t.Context(), "dev"); err != nil || len(jobs.Jobs) != 1 {
		t.Errorf("jobs: %+v, %v", jobs, err)
	}
	if text, err := os.ReadFile(home.ServicePID()); err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(v.PID) {
		t.Errorf("pid file %q, %v", text, err)
	}
	if r, err := c.Exec(t.Context(), ids[1], api.ExecRequest{Command: "echo still here"}); err != nil || r.Stdout != "still here\n" {
		t.Errorf("exec: %+v, %v", r, err)
	}
}

func TestOfServicesStartedAtOnceOneStays(t *testing.T) {
	home := servicetest.Home(t)
	var all []*daemon
	for range 4 {
		all = append(all, start(t, home, ""))
	}
	_, v := up(t, home)
	for _, d := range all {
		if d.cmd.Process.Pid == v.PID {
			continue
		}
		if code := d.code(); code != 0 || !strings.Contains(d.out.String(), fmt.Sprintf("runs already, pid %d", v.PID)) {
			t.Errorf("another: exit %d, %s", code, &d.out)
		}
	}
	if d := start(t, home, "9.9.9"); d.code() != 1 || !strings.Contains(d.out.String(), "this is 9.9.9; capsem service stop") {
		t.Errorf("another version: exit %d, %s", d.code(), &d.out)
	}
}

func TestEndsInOrderOnSignalsAndOnRequest(t *testing.T) {
	for name, end := range map[string]func(c *client.Client, d *daemon) error{
		"SIGTERM": func(_ *client.Client, d *daemon) error { return d.cmd.Process.Signal(syscall.SIGTERM) },
		"SIGINT":  func(_ *client.Client, d *daemon) error { return d.cmd.Process.Signal(syscall.SIGINT) },
		"request": func(c *client.Client, _ *daemon) error { _, err := c.Shutdown(t.Context()); return err },
	} {
		home := servicetest.Home(t)
		d := start(t, home, "")
		c, _ := up(t, home)
		vm, err := c.Provision(t.Context(), api.ProvisionRequest{Env: map[string]string{"TOKEN": "s3cret-value"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := end(c, d); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if code := d.code(); code != 0 {
			t.Errorf("%s: exit %d: %s", name, code, &d.out)
		}
		for _, path := range []string{home.ServiceSocket(), home.ServicePID(), home.ServiceLock()} {
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("%s: left %s", name, path)
			}
		}
		if _, held, err := guard.Holder(home.InstanceLock(vm.ID)); !held || err != nil {
			t.Errorf("%s: the VM does not run on (%v)", name, err)
		}
		log, err := os.ReadFile(home.ServiceLog())
		if err != nil || !bytes.Contains(log, []byte(vm.ID)) || bytes.Contains(log, []byte("s3cret")) {
			t.Errorf("%s: log %s (%v)", name, log, err)
		}
	}
}

func TestWhatCannotWorkIsSaidInOneLine(t *testing.T) {
	inTheWay := servicetest.Home(t)
	if err := os.WriteFile(inTheWay.Dir()+"/run", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	badSettings := servicetest.Home(t)
	if err := os.WriteFile(badSettings.UserConfig(), []byte("[vm]\nspeed = 9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for home, want := range map[paths.Home]string{inTheWay: "run", badSettings: "speed"} {
		d := start(t, home, "")
		if code := d.code(); code != 1 || !strings.Contains(d.out.String(), want) || strings.Count(d.out.String(), "\n") != 1 {
			t.Errorf("exit %d: %s", code, &d.out)
		}
	}
}

func TestSocketAndHomeAreTheOwnersAlone(t *testing.T) {
	home := servicetest.Home(t)
	if err := os.Chmod(home.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	start(t, home, "")
	up(t, home)
	for path, mode := range map[string]os.FileMode{home.Dir(): 0o700, home.ServiceSocket(): 0o600, home.ServiceLog(): 0o600, home.Instances(): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v (%v)", path, info.Mode(), err)
		}
	}
}

func TestALongHomeWorks(t *testing.T) {
	home := paths.Home(filepath.Join(servicetest.Home(t).Dir(), strings.Repeat("long", 30)))
	start(t, home, "")
	c, _ := up(t, home)
	vm, err := c.Provision(t.Context(), api.ProvisionRequest{})
	if err != nil || len(vm.UDSPath) > 100 {
		t.Fatalf("%+v, %v", vm, err)
	}
	if err := c.Delete(t.Context(), vm.ID); err != nil {
		t.Error(err)
	}
}
