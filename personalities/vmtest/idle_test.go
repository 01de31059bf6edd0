//go:build vm

package vmtest

import (
	"os"
	"strings"
	"testing"

	"capsem/core/lifecycle"
)

func TestAnIdleVMSleepsUntilItIsUsed(t *testing.T) {
	home := newHomeWithImage(t)
	if err := os.WriteFile(home.UserConfig(), []byte("[vm.idle]\nsuspend_after = \"1s\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := newInstall(t, home)
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1")
	asleep := func() bool { return in.info("vm").Status == lifecycle.Suspended }
	in.ok("exec", "vm", "echo here > /run/memory; sleep 3") // as long as it runs, so does the VM
	if vm := in.info("vm"); vm.Status != lifecycle.Running {
		t.Errorf("while it was used: %+v", vm)
	}
	in.until("sleep", asleep)
	if text := in.ok("list"); !strings.Contains(text, "wakes it") {
		t.Errorf("list prints %q", text)
	}
	in.want(0, "here\n", "", "exec", "vm", "cat /run/memory")
	in.until("sleep", asleep)
	in.killService() // which does not make it forget
	in.want(0, "here\n", "", "exec", "vm", "cat /run/memory")
	in.until("sleep", asleep)
	file := t.TempDir() + "/file"
	in.ok("cp", "vm:/run/memory", file)
	if text, err := os.ReadFile(file); err != nil || string(text) != "here\n" {
		t.Errorf("copied %q, %v", text, err)
	}
	in.until("sleep", asleep)
	in.ok("suspend", "vm") // now its owner wants it so
	in.want(125, "", "is Suspended", "exec", "vm", "true")
	in.ok("resume", "vm")
	// Many at once, while it falls asleep or is asleep.
	in.until("sleep", asleep)
	done := make(chan result, 8)
	for range cap(done) {
		go func() { done <- in.capsem("", "exec", "vm", "cat /run/memory") }()
	}
	for range cap(done) {
		if r := <-done; r.code != 0 || r.stdout != "here\n" {
			t.Errorf("one of many: %+v", r)
		}
	}
}
