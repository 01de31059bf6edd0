package service_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/service"
	"capsem/core/service/servicetest"
)

func start(t *testing.T) (*service.Service, paths.Home) {
	t.Helper()
	home := servicetest.Home(t)
	s, _ := servicetest.Start(t, servicetest.Options(t, home))
	return s, home
}

func create(t *testing.T, s *service.Service, req api.ProvisionRequest) string {
	t.Helper()
	reply, err := s.Provision(t.Context(), req)
	if err != nil {
		t.Fatalf("create: %s", fault.Line(err))
	}
	return reply.ID
}

// states is "id=State" of every VM.
func states(s *service.Service) string {
	var out []string
	for _, vm := range s.List().Sandboxes {
		out = append(out, vm.ID+"="+string(vm.Status))
	}
	return strings.Join(out, " ")
}

// await polls a condition that other processes bring about.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never came: %s", what)
		}
	}
}

func info(t *testing.T, s *service.Service, id string) api.SandboxInfo {
	t.Helper()
	vm, err := s.Info(id)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestANamedVMIsKeptAndAnUnnamedOneIsNot(t *testing.T) {
	s, home := start(t)
	named := create(t, s, api.ProvisionRequest{Name: "dev", Env: map[string]string{"SECRET": "s3cret"}})
	unnamed := create(t, s, api.ProvisionRequest{CPUs: 1, RAMMB: 300})
	if named != "dev" || !strings.HasSuffix(unnamed, "-tmp") {
		t.Errorf("ids %s and %s", named, unnamed)
	}
	vm := info(t, s, unnamed)
	if vm.Status != lifecycle.Running || vm.CPUs != 1 || vm.RAMMB != 300 || vm.DiskMB != 2048 || vm.PID == 0 || vm.Persistent || vm.Version != "test" {
		t.Errorf("unnamed: %+v", vm)
	}
	for _, dir := range []string{home.Dir(), home.Run(), vm.Dir, info(t, s, "dev").Dir} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: mode %v (%v)", dir, st.Mode(), err)
		}
	}
	for id, persistent := range map[string]bool{named: true, unnamed: false} {
		reply, err := s.Stop(t.Context(), id)
		if err != nil || reply.Persistent != persistent {
			t.Errorf("stop %s: %+v, %v", id, reply, err)
		}
	}
	if got := states(s); got != "dev=Stopped" {
		t.Errorf("after stopping both: %s", got)
	}
	if _, err := os.Stat(vm.Dir); !os.IsNotExist(err) {
		t.Errorf("the unnamed one's directory: %v", err)
	}
	if left, _ := os.ReadDir(home.Instances()); len(left) != 0 {
		t.Errorf("left in instances: %v", left)
	}
	if _, err := s.Resume(t.Context(), "dev", false); err != nil {
		t.Fatal(err)
	}
	before := info(t, s, "dev").PID
	if _, err := s.Restart(t.Context(), "dev"); err != nil || info(t, s, "dev").PID == before {
		t.Errorf("restart: %v, worker %d as before", err, before)
	}
	if err := s.Delete(t.Context(), "dev"); err != nil || states(s) != "" {
		t.Errorf("delete: %v, left %s", err, states(s))
	}
	if reg, err := os.ReadFile(home.Registry()); err != nil || strings.Contains(string(reg), "dev") {
		t.Errorf("registry %s (%v)", reg, err)
	}
}

func TestWhatAVMDoesByItselfShows(t *testing.T) {
	s, home := start(t)
	for name, c := range map[string]struct{ command, want, failed string }{
		"power off, named":   {"poweroff", "vm=Stopped", ""},
		"power off, unnamed": {"poweroff", "", ""},
		"worker, named":      {"die", "vm=Defunct", ""},
		"worker, unnamed":    {"die", "", "its worker died"},
		"QEMU, unnamed":      {"crash", "", "QEMU died"},
		"QEMU, named":        {"crash", "vm=Defunct", ""},
	} {
		t.Run(name, func(t *testing.T) {
			req := api.ProvisionRequest{}
			if strings.HasSuffix(name, ", named") {
				req.Name = "vm"
			}
			id := create(t, s, req)
			run(t, s, id, c.command)
			await(t, name+": "+c.want, func() bool { return states(s) == c.want })
			logs, err := s.Logs(id, 0)
			if (err == nil) != (c.want != "" || c.failed != "") || !strings.Contains(logs.Logs, c.failed) {
				t.Errorf("logs %q, %v", logs.Logs, err)
			}
			if _, err := os.Stat(filepath.Join(home.Failed(), id)); (err == nil) != (c.failed != "") {
				t.Errorf("kept as failed: %v", err)
			}
			if c.failed != "" {
				if _, err := s.Info(id); !fault.Is(err, fault.NotFound) || !strings.Contains(fault.Line(err), "capsem logs "+id) {
					t.Errorf("asking for it: %v", err)
				}
			}
			if req.Name == "" {
				return
			}
			if vm := info(t, s, "vm"); vm.Status == lifecycle.Defunct && vm.LastError == "" {
				t.Error("nothing says why it is Defunct")
			}
			if _, err := s.Dial(t.Context(), "vm", true); !fault.Is(err, fault.Conflict) || !strings.Contains(fault.Line(err), "capsem resume vm") {
				t.Errorf("using it: %v", err)
			}
			if _, err := s.Resume(t.Context(), "vm", false); err != nil || info(t, s, "vm").LastError != "" {
				t.Errorf("resume: %v", err)
			}
			if err := s.Delete(t.Context(), "vm"); err != nil {
				t.Error(err)
			}
		})
	}
}

// run starts a command in a VM and does not wait for it.
func run(t *testing.T, s *service.Service, id, command string) {
	t.Helper()
	conn, err := s.Stream(t.Context(), id, proto.WorkerRequest{Op: proto.OpExec, Exec: &proto.ExecRequest{Command: command}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
}

// say runs a command in a VM and returns what it prints.
func say(t *testing.T, s *service.Service, id, command string) string {
	t.Helper()
	conn, err := s.Stream(t.Context(), id, proto.WorkerRequest{Op: proto.OpExec, Exec: &proto.ExecRequest{Command: command}})
	if err != nil {
		t.Fatal(fault.Line(err))
	}
	defer conn.Close()
	var out strings.Builder
	for frames := proto.NewStreamReader(conn); ; {
		kind, data, err := frames.Next()
		switch {
		case err != nil:
			t.Fatalf("%s: %v", command, err)
		case kind == proto.KindStdout:
			out.Write(data)
		case kind == proto.KindExit:
			return out.String()
		}
	}
}

func TestAVMThatCannotStartSaysWhy(t *testing.T) {
	s, _ := start(t)
	for fake, want := range map[string]string{
		servicetest.CrashAtStart: "crashed as it was told to",
		servicetest.FailBoot:     "panic - not syncing",
	} {
		for _, name := range []string{"", "vm"} {
			_, err := s.Provision(t.Context(), api.ProvisionRequest{Name: name, Env: map[string]string{servicetest.Variable: fake}})
			if err == nil || !strings.Contains(fault.Line(err), want) || !strings.Contains(fault.Line(err), "capsem logs") {
				t.Errorf("%s %q: %v", fake, name, err)
			}
			if name == "" && states(s) != "" {
				t.Errorf("%s: left %s", fake, states(s))
			}
			if name != "" {
				await(t, "Defunct", func() bool { return states(s) == "vm=Defunct" })
				if err := s.Delete(t.Context(), name); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestACallerWhoLeavesTakesItsUnnamedVMAlong(t *testing.T) {
	s, _ := start(t)
	for _, name := range []string{"", "stays"} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := s.Provision(ctx, api.ProvisionRequest{Name: name, Env: map[string]string{servicetest.Variable: servicetest.NeverReady}})
			done <- err
		}()
		await(t, "booting", func() bool { return strings.Contains(states(s), "=Booting") })
		cancel()
		if err := <-done; err == nil {
			t.Error("creating succeeded")
		}
	}
	if got := states(s); got != "stays=Booting" {
		t.Errorf("left: %s", got)
	}
	if err := s.Delete(t.Context(), "stays"); err != nil {
		t.Error(err)
	}
}

func TestAWorkerThatDoesNotEndIsKilled(t *testing.T) {
	s, _ := start(t)
	id := create(t, s, api.ProvisionRequest{Env: map[string]string{servicetest.Variable: servicetest.Stubborn}})
	pid := info(t, s, id).PID
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("worker %d: %v", pid, err)
	}
}

func TestPurgeTakesTheUnnamedOnesOrAll(t *testing.T) {
	s, _ := start(t)
	create(t, s, api.ProvisionRequest{Name: "keep"})
	create(t, s, api.ProvisionRequest{})
	create(t, s, api.ProvisionRequest{})
	if got, err := s.Purge(t.Context(), false); err != nil || got != (api.PurgeReply{Purged: 2, EphemeralPurged: 2}) || states(s) != "keep=Running" {
		t.Errorf("purge: %+v, %v, left %s", got, err, states(s))
	}
	if got, err := s.Purge(t.Context(), true); err != nil || got != (api.PurgeReply{Purged: 1, PersistentPurged: 1}) || states(s) != "" {
		t.Errorf("purge all: %+v, %v, left %s", got, err, states(s))
	}
}

func TestPersistNamesARunningVM(t *testing.T) {
	s, home := start(t)
	id := create(t, s, api.ProvisionRequest{})
	create(t, s, api.ProvisionRequest{Name: "taken"})
	old := info(t, s, id)
	for name, want := range map[string]fault.Code{"taken": fault.Conflict, "bad name": fault.Invalid, "x-tmp": fault.Invalid, "": fault.Invalid} {
		if err := s.Persist(t.Context(), id, name); !fault.Is(err, want) {
			t.Errorf("persist as %q: %v", name, err)
		}
	}
	if err := s.Persist(t.Context(), id, "mine"); err != nil {
		t.Fatal(err)
	}
	vm := info(t, s, "mine")
	if vm.PID != old.PID || vm.Dir != home.Persistent("mine").Dir() || vm.Status != lifecycle.Running || !vm.Persistent {
		t.Errorf("named: %+v", vm)
	}
	if _, err := s.Info(id); !fault.Is(err, fault.NotFound) {
		t.Errorf("under its old id: %v", err)
	}
	if err := s.Persist(t.Context(), "mine", "again"); !fault.Is(err, fault.Conflict) {
		t.Errorf("naming it again: %v", err)
	}
	if _, err := s.Stop(t.Context(), "mine"); err != nil || states(s) != "taken=Running mine=Stopped" && states(s) != "mine=Stopped taken=Running" {
		t.Errorf("stop: %v, %s", err, states(s))
	}
	if _, err := s.Resume(t.Context(), "mine", false); err != nil {
		t.Errorf("resume: %v", err)
	}
}
