//go:build vm

package vmtest

import (
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/lifecycle"
)

func TestARewoundVMIsWhatItWas(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1")
	in.ok("exec", "-d", "vm", `i=0; while :; do i=$((i+1)); echo $i > /run/count.new; mv /run/count.new /run/count; sleep 0.05; done`)
	in.until("a count", func() bool { return in.capsem("", "exec", "vm", "test -e /run/count").code == 0 })
	in.ok("exec", "vm", "echo good > /root/file; mkdir /etc/dir")
	before := in.count("vm")
	in.want(0, "good\n", "", "checkpoint", "-d", "before the agent", "vm", "good")
	at := in.count("vm")
	in.want(1, "", `"good" is there already`, "checkpoint", "vm", "good")
	in.want(1, "", `there is no checkpoint "bad"`, "rewind", "vm", "bad")
	if text := in.ok("checkpoint", "--list", "vm"); !strings.Contains(text, "before the agent") || !strings.Contains(text, "goes on") {
		t.Errorf("checkpoint --list prints %q", text)
	}
	seen := map[string]bool{}
	for range 2 {
		in.ok("exec", "vm", "rm -r /root/file /etc/dir; pkill -f '[r]un/count'; sync")
		in.want(0, "vm\n", "", "rewind", "vm", "good")
		if n := in.count("vm"); n < before || n > at+200 {
			t.Errorf("it counts from %d, and was between %d and %d", n, before, at)
		}
		in.want(0, "good\n", "", "exec", "vm", "cat /root/file; test -d /etc/dir")
		seen[in.ok("exec", "vm", "cat /proc/sys/kernel/random/uuid")] = true
	}
	if len(seen) != 2 {
		t.Errorf("after both rewinds the guest had the same randomness: %v", seen)
	}
	// One of a VM that is down boots; deleting is for one only.
	in.ok("stop", "vm")
	in.ok("checkpoint", "vm", "down")
	in.ok("rewind", "vm", "good")
	in.killService()
	in.ok("rewind", "vm", "down")
	in.want(0, "good\n", "", "exec", "vm", "cat /root/file; test ! -e /run/count")
	in.ok("checkpoint", "--delete", "vm", "good")
	in.want(1, "", `there is no checkpoint "good"`, "rewind", "vm", "good")
	if vm := in.info("vm"); vm.Status != lifecycle.Running {
		t.Errorf("in the end: %+v", vm)
	}
	damagedCheckpoint(t, in)
}

// damagedCheckpoint changes a byte of what a checkpoint has: the VM goes on as it was.
func damagedCheckpoint(t *testing.T, in *install) {
	t.Helper()
	in.ok("exec", "vm", "echo now > /run/now")
	in.ok("checkpoint", "vm", "flipped")
	for file, says := range map[string]string{"suspended/state": "memory has changed", "suspended/extra": "memory has changed", "system.qcow2": "is damaged"} {
		path := filepath.Join(in.home.Persistent("vm").Checkpoints(), "flipped", file)
		flip(t, path, 40)
		in.want(1, "", says, "rewind", "vm", "flipped")
		in.want(0, "now\n", "", "exec", "vm", "cat /run/now")
		flip(t, path, 40)
	}
	in.ok("exec", "vm", "rm /run/now")
	in.ok("rewind", "vm", "flipped")
	in.want(0, "now\n", "", "exec", "vm", "cat /run/now")
}
