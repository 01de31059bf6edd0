package service_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/guard"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/service"
	"capsem/core/service/servicetest"
)

// again starts a service where another has been.
func again(t *testing.T, home paths.Home) (*service.Service, func()) {
	t.Helper()
	return servicetest.Start(t, servicetest.Options(t, home))
}

func kill(t *testing.T, home paths.Home, instance string) {
	t.Helper()
	pid, held, err := guard.Holder(home.InstanceLock(instance))
	if err != nil || !held || pid < 2 {
		t.Fatalf("%s is held by %d (%v, %v)", instance, pid, held, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of a killed worker", func() bool {
		_, held, err := guard.Holder(home.InstanceLock(instance))
		return err == nil && !held
	})
}

func TestANewServiceTakesOverEveryWorkerThatAnswers(t *testing.T) {
	home := servicetest.Home(t)
	s, stop := again(t, home)
	named, unnamed := create(t, s, api.ProvisionRequest{Name: "dev"}), create(t, s, api.ProvisionRequest{})
	before := []api.SandboxInfo{info(t, s, named), info(t, s, unnamed)}
	stop()
	s, _ = again(t, home)
	for _, was := range before {
		is := info(t, s, was.ID)
		if is.PID != was.PID || is.Status != lifecycle.Running || is.RAMMB != was.RAMMB || is.CreatedAt != was.CreatedAt || is.UDSPath != was.UDSPath {
			t.Errorf("was %+v, is %+v", was, is)
		}
	}
	// It watches them as if it had started them.
	run(t, s, unnamed, "die")
	run(t, s, named, "die")
	await(t, "their deaths", func() bool { return states(s) == "dev=Defunct" })
	if _, err := s.Logs(unnamed, 3); err != nil {
		t.Errorf("logs of the dead: %v", err)
	}
}

func TestWhatDiedWhileNoServiceRanIsSettled(t *testing.T) {
	home := servicetest.Home(t)
	s, stop := again(t, home)
	create(t, s, api.ProvisionRequest{Name: "killed"})
	create(t, s, api.ProvisionRequest{Name: "stopped"})
	create(t, s, api.ProvisionRequest{Name: "stubborn"})
	lost := create(t, s, api.ProvisionRequest{})
	if _, err := s.Stop(t.Context(), "stopped"); err != nil {
		t.Fatal(err)
	}
	// One that is killed and then stopped is Stopped, whatever its worker could say.
	kill(t, home, "stubborn")
	await(t, "its end", func() bool { return info(t, s, "stubborn").PID == 0 })
	if _, err := s.Stop(t.Context(), "stubborn"); err != nil {
		t.Fatal(err)
	}
	stop()
	kill(t, home, "killed")
	kill(t, home, lost)
	s, _ = again(t, home)
	if got := states(s); got != "killed=Defunct stopped=Stopped stubborn=Stopped" {
		t.Errorf("the new service has %s", got)
	}
	if vm := info(t, s, "killed"); !strings.Contains(vm.LastError, "fake worker of killed") {
		t.Errorf("why: %q", vm.LastError)
	}
	if logs, err := s.Logs(lost, 0); err != nil || !strings.Contains(logs.Logs, "console of "+lost) {
		t.Errorf("logs of the unnamed: %q, %v", logs.Logs, err)
	}
	if left, _ := os.ReadDir(home.Instances()); len(left) != 0 {
		t.Errorf("left in instances: %v", left)
	}
	if _, err := s.Resume(t.Context(), "killed", false); err != nil {
		t.Errorf("resume: %v", err)
	}
}

func TestWorkersThatCannotBeTakenOverAreReaped(t *testing.T) {
	home := servicetest.Home(t)
	s, stop := again(t, home)
	stop()
	_ = s
	for name, prepare := range map[string]func(id string){
		"of another protocol": func(id string) { spawn(t, home, id, servicetest.Foreign) },
		"its VM is gone": func(id string) {
			spawn(t, home, id, "")
			await(t, "its directory to go", func() bool { return os.RemoveAll(home.Session(id).Dir()) == nil })
		},
	} {
		prepare("odd-worker-tmp")
		pid, _, err := guard.Holder(home.InstanceLock("odd-worker-tmp"))
		if err != nil {
			t.Fatal(err)
		}
		s, stop := again(t, home)
		await(t, name+": its end", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
		if states(s) != "" {
			t.Errorf("%s: left %s", name, states(s))
		}
		if left, _ := os.ReadDir(home.Instances()); len(left) != 0 {
			t.Errorf("%s: left in instances: %v", name, left)
		}
		stop()
		if err := os.RemoveAll(home.Failed() + "/odd-worker-tmp"); err != nil {
			t.Fatal(err)
		}
	}
}

// spawn starts a worker as a child of the test, which reaps it.
func spawn(t *testing.T, home paths.Home, id, fake string) {
	t.Helper()
	spawnIn(t, home, home.Session(id), id, fake)
}

func spawnIn(t *testing.T, home paths.Home, dir paths.VM, id, fake string) {
	t.Helper()
	if err := os.MkdirAll(dir.Workspace(), 0o700); err != nil {
		t.Fatal(err)
	}
	spec := `{"id":"` + id + `","cpus":1,"memory_mb":256,"disk_mb":1024,"asset_version":"test","ready_timeout_ms":1000,"env":{"FAKE":"` + fake + `"}}`
	if err := os.WriteFile(dir.Spec(), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "--home", home.Dir(), "--dir", dir.Dir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	await(t, "a worker", func() bool {
		_, err := os.Stat(home.InstanceSocket(id))
		return err == nil
	})
}

func TestAWorkerThatIsSlowToAnswerIsTakenOver(t *testing.T) {
	home := servicetest.Home(t)
	s, stop := again(t, home)
	id := create(t, s, api.ProvisionRequest{})
	pid := info(t, s, id).PID
	stop()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := time.AfterFunc(300*time.Millisecond, func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	defer goOn.Stop()
	s, _ = again(t, home)
	if vm := info(t, s, id); vm.PID != pid || vm.Status != lifecycle.Running {
		t.Errorf("got %+v", vm)
	}
}

func TestAWorkerThatNobodyKnowsOfGoesWithItsVM(t *testing.T) {
	home := servicetest.Home(t)
	for name, fake := range map[string]string{"that answers": "", "of another protocol": servicetest.Foreign} {
		t.Run(name, func(t *testing.T) {
			s, stop := again(t, home)
			defer stop()
			create(t, s, api.ProvisionRequest{Name: "dev"})
			if _, err := s.Stop(t.Context(), "dev"); err != nil {
				t.Fatal(err)
			}
			// As a service leaves it that is killed between starting a worker and hearing from it.
			dir := home.Persistent("dev")
			spawnIn(t, home, dir, "dev", fake)
			pid, _, err := guard.Holder(home.InstanceLock("dev"))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Delete(t.Context(), "dev"); err != nil {
				t.Fatal(err)
			}
			await(t, "its end", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
			if _, err := os.Lstat(dir.Dir()); !os.IsNotExist(err) {
				t.Errorf("its directory: %v", err)
			}
			if left, _ := os.ReadDir(home.Instances()); len(left) != 0 {
				t.Errorf("left in instances: %v", left)
			}
		})
	}
}

func TestALockHeldByAProcessThatIsNoWorkerIsNotAVM(t *testing.T) {
	home := servicetest.Home(t)
	_, stop := again(t, home)
	stop()
	// A stale lock and socket whose process id now is somebody else's: ours.
	if err := os.WriteFile(home.InstanceLock("old-one-tmp"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home.InstanceSocket("old-one-tmp"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := again(t, home)
	if left, _ := os.ReadDir(home.Instances()); len(left) != 0 || states(s) != "" {
		t.Errorf("left %v, %s", left, states(s))
	}
	if _, err := s.Info("old-one-tmp"); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
}
