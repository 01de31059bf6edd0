//go:build vm

package vmtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"capsem/core/api"
)

// TestWhatAGuestDoesToFilesCanBeUndone deletes, reverts, and reverts the revert, in a VM that runs, in one that does not, from both sides,
// and with the worker killed in the middle.
func TestWhatAGuestDoesToFilesCanBeUndone(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1")
	in.ok("exec", "vm", "mkdir -p proj/deep; echo one > proj/deep/a; ln -s nowhere proj/link; echo x > $(printf 'proj/n\\377me'); chmod 750 proj/deep")
	in.ok("snapshots", "create", "vm", "before")
	in.ok("exec", "vm", "rm -rf proj; echo new > new")
	var reverted api.SnapshotReverted
	decode(t, in.ok("snapshots", "revert", "--json", "vm", "proj"), &reverted)
	in.want(0, "one\nnowhere\n750\nx\nnew\n", "", "exec", "vm", "cat proj/deep/a; readlink proj/link; stat -c %a proj/deep; cat $(printf 'proj/n\\377me'); cat new")
	in.ok("snapshots", "revert", "vm", "proj", reverted.Undo)
	in.want(2, "", "No such file", "exec", "vm", "ls proj")

	// From inside, with paths as they are there. What the owner keeps is not the guest's to remove.
	in.ok("exec", "vm", "snapshots revert /root/proj && cd proj && echo two > deep/a && snapshots create mine && rm deep/a && snapshots revert deep/a && test $(cat deep/a) = two")
	in.want(1, "", "made by the owner", "exec", "vm", "snapshots delete cp-10")
	in.ok("exec", "vm", "snapshots delete cp-11")
	in.want(1, "", "outside of the workspace", "exec", "vm", "snapshots revert ../etc")
	in.want(1, "", "outside of the workspace", "exec", "vm", "snapshots revert /etc/passwd")

	// An open file goes on; its place has the old content again.
	in.ok("exec", "-d", "vm", "exec 8>> /root/log; while :; do echo tick >&8; sleep 0.05; done")
	in.until("ticks", func() bool { return in.capsem("", "exec", "vm", "test -s log").code == 0 })
	in.ok("snapshots", "create", "vm", "ticking")
	in.ok("snapshots", "revert", "vm", "log", "cp-10")
	in.want(1, "", "No such file", "exec", "vm", "cat log")

	in.ok("stop", "vm")
	in.ok("snapshots", "revert", "vm", ".", "cp-10")
	if text, err := os.ReadFile(filepath.Join(in.home.Persistent("vm").Workspace(), "proj", "deep", "a")); err != nil || string(text) != "one\n" {
		t.Errorf("%q, %v", text, err)
	}
	in.ok("resume", "vm")
	killedInSnapshots(t, in)
	if text := in.ok("history", "--kind", "snapshot", "vm"); !strings.Contains(text, "before") {
		t.Errorf("the record knows of no snapshots: %s", text)
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

// killedInSnapshots kills the worker while it makes a snapshot of many files, and while it puts them back.
func killedInSnapshots(t *testing.T, in *install) {
	t.Helper()
	const files = 3000
	dir := filepath.Join(in.home.Persistent("vm").Workspace(), "many")
	fill := func(word string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for i := range files {
			if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), []byte(word+strings.Repeat("x", 2000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill("old")
	in.ok("snapshots", "create", "vm", "many")
	var list api.SnapshotsReply
	decode(t, in.ok("snapshots", "list", "--json", "vm"), &list)
	id := list.Snapshots[len(list.Snapshots)-1].Checkpoint
	fill("new")
	for _, verb := range [][]string{{"snapshots", "create", "vm", "cut"}, {"snapshots", "revert", "vm", "many", id}} {
		killedIn(t, in, verb)
	}
	// The revert was finished, or had not begun: never half of each.
	words := map[string]int{}
	for i := range files {
		text, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		words[string(text[:3])]++
	}
	if len(words) != 1 {
		t.Errorf("half a revert: %v", words)
	}
	in.ok("snapshots", "revert", "vm", ".", "cp-10")
}

// killedIn kills the worker while it does something with snapshots.
func killedIn(t *testing.T, in *install, verb []string) {
	t.Helper()
	pid := in.info("vm").PID
	done := make(chan struct{})
	go func() {
		defer close(done)
		in.capsem("", verb...)
	}()
	temp := filepath.Join(in.home.Persistent("vm").Snapshots(), "tmp")
	in.until("work", func() bool {
		names, err := os.ReadDir(temp)
		select {
		case <-done:
			return true
		default:
			return err == nil && len(names) > 0
		}
	})
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-done
	in.until("the end of the worker", func() bool { return in.info("vm").PID == 0 })
	in.ok("resume", "vm")
	var list api.SnapshotsReply
	decode(t, in.ok("snapshots", "list", "--json", "vm"), &list)
	if len(list.Damaged) > 0 {
		t.Errorf("after a kill in %v: damaged %v", verb, list.Damaged)
	}
}
