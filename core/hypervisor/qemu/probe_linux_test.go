package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
	"capsem/core/hypervisor"
	"capsem/core/paths"
)

// script is a program by the name of QEMU, in a directory where everybody may write: a probe is nobody.
func script(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "qemu-system-"+names[runtime.GOARCH])
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// works ends as QEMU does when KVM runs the test.
func works(t *testing.T) string {
	t.Helper()
	p, err := probeFor(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	return "exit " + strconv.Itoa(p.exit)
}

func plant(t *testing.T, home paths.Home, v verdict) {
	t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = errors.Join(os.MkdirAll(home.Run(), 0o700), os.WriteFile(home.AcceleratorVerdict(), text, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAVerdictThatSaysNoIsBelievedForATime(t *testing.T) {
	program := script(t, works(t))
	host, err := identity(program)
	if err != nil {
		t.Fatal(err)
	}
	const planted = "planted"
	for name, c := range map[string]struct {
		kvm, hung bool
		age       time.Duration
		insist    bool
		believed  bool
	}{
		"a no of now":                     {age: 0, believed: true},
		"a no of 9 minutes":               {age: 9 * time.Minute, believed: true},
		"a no of 11 minutes":              {age: 11 * time.Minute},
		"a no from the future":            {age: -time.Hour},
		"a no of no time, of long ago":    {age: time.Since(time.Time{})},
		"a hang of 11 minutes":            {hung: true, age: 11 * time.Minute, believed: true},
		"a hang of 23 hours":              {hung: true, age: 23 * time.Hour, believed: true},
		"a hang of 25 hours":              {hung: true, age: 25 * time.Hour},
		"a yes of a year":                 {kvm: true, age: 365 * 24 * time.Hour, believed: true},
		"a no of now, with KVM wanted":    {insist: true},
		"a hang of now, with KVM wanted":  {hung: true, insist: true},
		"a yes of a year with KVM wanted": {kvm: true, age: 365 * 24 * time.Hour, insist: true, believed: true},
	} {
		t.Run(name, func(t *testing.T) {
			home := paths.Home(t.TempDir())
			plant(t, home, verdict{Host: host, KVM: c.kvm, Why: planted, Hung: c.hung, At: time.Now().Add(-c.age)})
			v, err := remembered(t.Context(), home, program, c.insist)
			if err != nil || (v.Why == planted) != c.believed {
				t.Fatalf("the verdict is %+v, %v", v, err)
			}
			if now, ok := load(home.AcceleratorVerdict()); !ok || now.Why != v.Why {
				t.Errorf("remembered is %+v", now)
			}
		})
	}
}

func TestKVMThatIsInsistedOnIsTriedInSpiteOfANo(t *testing.T) {
	program := script(t, works(t))
	t.Setenv("PATH", filepath.Dir(program))
	host, err := identity(program)
	if err != nil {
		t.Fatal(err)
	}
	home := paths.Home(t.TempDir())
	plant(t, home, verdict{Host: host, Why: "planted", At: time.Now()})
	if a, why, err := Resolve(t.Context(), home, hypervisor.Auto); err != nil || a != hypervisor.TCG || why != "planted" {
		t.Errorf("auto is %q, because %q, %v", a, why, err)
	}
	a, why, err := Resolve(t.Context(), home, hypervisor.KVM)
	if Probe(t.Context(), program) != nil { // there is no /dev/kvm that we may open
		if !fault.Is(err, fault.Unavailable) || strings.Contains(err.Error(), "planted") {
			t.Errorf("insisted on it is %q, %v", a, err)
		}
		return
	}
	if err != nil || a != hypervisor.KVM {
		t.Errorf("insisted on it is %q, because %q, %v", a, why, err)
	}
	if a, _, err := Resolve(t.Context(), home, hypervisor.Auto); err != nil || a != hypervisor.KVM {
		t.Errorf("then auto is %q, %v", a, err)
	}
}

func TestAProbeTellsAHangFromAFailure(t *testing.T) {
	ended, stop := context.WithCancel(t.Context())
	stop()
	for name, c := range map[string]struct {
		ctx  context.Context
		text string
		hung bool
		says string
	}{
		"hangs":       {t.Context(), "exec sleep 60", true, "did not run within"},
		"says no":     {t.Context(), "echo no access >&2; exit 1", false, "no access"},
		"only ends":   {t.Context(), "exit 3", false, "exit status 3"},
		"is given up": {ended, "exec sleep 60", false, "canceled"},
	} {
		err := runProbe(c.ctx, script(t, c.text), "kvm", "host")
		if err == nil || errors.Is(err, errHung) != c.hung || !strings.Contains(err.Error(), c.says) {
			t.Errorf("a program that %s: %v", name, err)
		}
	}
	if err := runProbe(t.Context(), script(t, works(t)), "kvm", "host"); err != nil {
		t.Errorf("a program that works: %v", err)
	}
}

const probeEnv = "CAPSEM_TEST_PROBE"

func TestAProbeEndsWithTheProcessThatStartedIt(t *testing.T) {
	if program := os.Getenv(probeEnv); program != "" { // we are the process that is killed below
		_ = runProbe(t.Context(), program, "kvm", "host")
		return
	}
	program := script(t, `echo $$ > "${0%/*}/new"; mv "${0%/*}/new" "${0%/*}/pid"; exec sleep 60`)
	parent := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	parent.Env = []string{probeEnv + "=" + program}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(30 * time.Second); pid == 0; {
		if now := <-tick.C; now.After(limit) {
			t.Fatal("the probe did not start")
		}
		if text, err := os.ReadFile(filepath.Join(filepath.Dir(program), "pid")); err == nil {
			_, _ = fmt.Sscan(string(text), &pid)
		}
	}
	probe, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(probe)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed
	ready := []unix.PollFd{{Fd: int32(probe), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(ready, 10_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 || err != nil {
			t.Errorf("the probe outlives its parent (%d, %v)", n, err)
			_ = unix.PidfdSendSignal(probe, unix.SIGKILL, nil, 0)
		}
		return
	}
}
