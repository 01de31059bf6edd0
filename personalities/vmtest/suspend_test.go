//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"capsem/core/api"
	"capsem/core/lifecycle"
)

// count is how far the counter in a VM has come.
func (in *install) count(id string) int {
	in.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(in.ok("exec", id, "cat /run/count")))
	if err != nil {
		in.t.Fatal(err)
	}
	return n
}

func TestASuspendedVMGoesOnFromWhereItWas(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1")
	in.ok("exec", "-d", "vm", `i=0; while :; do i=$((i+1)); echo $i > /run/count.new; mv /run/count.new /run/count; sleep 0.05; done`)
	in.until("a count", func() bool { return in.capsem("", "exec", "vm", "test -e /run/count").code == 0 })
	before := in.count("vm")

	// The service may die, and commands that are attached are told.
	attached := in.command(t.Context(), "exec", "vm", "echo here; sleep 1000")
	var told strings.Builder
	out, err := attached.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	attached.Stderr = &told
	if err := attached.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	in.ok("suspend", "vm")
	_ = attached.Wait() // looked at below
	if attached.ProcessState.ExitCode() != 125 || !strings.Contains(told.String(), "was suspended") {
		t.Errorf("who was attached is told %q, exit %d", told.String(), attached.ProcessState.ExitCode())
	}
	in.want(125, "", "is Suspended", "exec", "vm", "true")
	in.killService()
	if vm := in.info("vm"); vm.Status != lifecycle.Suspended {
		t.Errorf("after the service's death: %+v", vm)
	}
	in.ok("resume", "vm")
	now := in.count("vm")
	if now <= before || in.capsem("", "exec", "vm", "pgrep -f 'sleep 1000'").code != 0 {
		t.Errorf("the count was %d, and is %d after the resume", before, now)
	}
	in.until("a higher count", func() bool { return in.count("vm") > now })

	fromATemplate(in)
	refusals(in)
	fromInside(in)
	killedWhileSaving(in)
}

// killService kills the service as nothing else would.
func (in *install) killService() {
	in.t.Helper()
	text, err := os.ReadFile(in.home.ServicePID())
	if err != nil {
		in.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || syscall.Kill(pid, syscall.SIGKILL) != nil {
		in.t.Fatalf("cannot kill the service, %q: %v", text, err)
	}
}

// fromATemplate suspends and forks a VM that did not boot itself.
func fromATemplate(in *install) {
	in.t.Helper()
	in.until("a template", func() bool { keys, making := in.templates(); return len(keys) > 0 && !making })
	in.ok("create", "-n", "warm", "--ram", "512M", "--cpu", "1")
	if !in.info("warm").Warm {
		in.t.Error("it has booted")
	}
	in.ok("exec", "warm", "echo here > /run/memory")
	for range 2 {
		in.ok("suspend", "warm")
		in.ok("resume", "warm")
		in.want(0, "here\n", "", "exec", "warm", "cat /run/memory")
	}
	in.ok("fork", "warm", "image")
	in.want(0, "here\n", "", "run", "--image", "image", "cat /run/memory")
	in.ok("image", "delete", "image")
	in.ok("delete", "warm")
}

func refusals(in *install) {
	in.t.Helper()
	unnamed := strings.TrimSpace(in.ok("create", "--ram", "512M", "--cpu", "1"))
	in.want(1, "", "capsem persist", "suspend", unnamed)
	in.ok("delete", unnamed)
	in.want(1, "", "there is no VM", "suspend", "nobody")
	in.ok("suspend", "vm")
	in.want(0, "", "", "suspend", "vm") // it is
	flip(in.t, filepath.Join(in.home.Persistent("vm").Dir(), "suspended", "state"), 1000)
	in.want(1, "", "capsem resume --cold vm", "resume", "vm")
	in.ok("resume", "--cold", "vm")
	in.want(1, "", "", "exec", "vm", "test -e /run/count") // it has booted
}

func fromInside(in *install) {
	in.t.Helper()
	in.capsem("", "exec", "vm", "echo kept > /run/kept; /usr/local/bin/suspend") // it may be cut off
	in.until("its suspension", func() bool { return in.info("vm").Status == lifecycle.Suspended })
	in.ok("resume", "vm")
	in.want(0, "kept\n", "", "exec", "vm", "cat /run/kept")
}

// killedWhileSaving kills the worker in the middle of a suspend: the disk is as it was, and nothing half-made is used.
func killedWhileSaving(in *install) {
	in.t.Helper()
	in.ok("exec", "vm", "echo safe > /root/safe; sync; head -c 200000000 /dev/urandom > /dev/shm/x")
	worker := in.info("vm").PID
	dir := in.home.Persistent("vm").Dir()
	cmd := in.command(in.t.Context(), "suspend", "vm")
	if err := cmd.Start(); err != nil {
		in.t.Fatal(err)
	}
	in.until("a state that is being written", func() bool {
		info, err := os.Stat(filepath.Join(dir, "suspended.new", "state"))
		return err == nil && info.Size() > 1<<20
	})
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		in.t.Fatal(err)
	}
	_ = cmd.Wait() // looked at below
	if cmd.ProcessState.ExitCode() == 0 {
		in.t.Log("it was saved before the kill")
	}
	var vm api.SandboxInfo
	in.until("its end", func() bool {
		vm = in.info("vm")
		return !lifecycle.Live(vm.Status)
	})
	in.ok("resume", "vm")
	in.want(0, "safe\n", "", "exec", "vm", "cat /root/safe")
	for _, name := range []string{"suspended.new", "suspended.used"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			in.t.Errorf("%s is left", name)
		}
	}
}
