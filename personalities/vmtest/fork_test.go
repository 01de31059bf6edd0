//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/lifecycle"
)

func TestForksOfARunningVMGoOnEachForItself(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	in.ok("create", "-n", "parent", "--ram", "512M", "--cpu", "1", "-e", "GREETING=hello")
	in.ok("exec", "-d", "parent", `i=0; while :; do i=$((i+1)); echo $i > /run/count.new; mv /run/count.new /run/count; sleep 0.05; done`)
	in.until("a count", func() bool { return in.capsem("", "exec", "parent", "test -e /run/count").code == 0 })
	in.ok("exec", "parent", "echo of the parent > /root/file")
	if got := in.ok("fork", "-d", "at work", "parent", "busy"); got != "busy\n" {
		t.Errorf("fork prints %q", got)
	}
	at := in.count("parent")
	seen := map[string]string{}
	for _, id := range []string{"one", "two"} {
		in.ok("create", "-n", id, "--image", "busy")
		if n := in.count(id); n < 1 || n > at+200 {
			t.Errorf("%s counts from %d, and the parent was at %d", id, n, at)
		}
		out := in.ok("exec", id, "hostname; cat /root/file; echo $GREETING; cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id /etc/machine-id")
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != 6 || lines[0] != id || lines[1] != "of the parent" || lines[2] != "hello" {
			t.Fatalf("%s says %q", id, lines)
		}
		for _, line := range lines[3:] {
			if other := seen[line]; other != "" {
				t.Errorf("%s and %s both have %s", id, other, line)
			}
			seen[line] = id
		}
	}
	for _, id := range []string{"parent", "one", "two"} {
		before := in.count(id)
		in.until("a higher count in "+id, func() bool { return in.count(id) > before })
	}
	children(t, in)
	imageFaults(t, in)
}

// children live without what they came from, and have children of their own.
func children(t *testing.T, in *install) {
	t.Helper()
	in.ok("exec", "one", "echo of one > /root/file; sync")
	in.ok("stop", "one")
	in.ok("fork", "one", "still")
	in.ok("delete", "parent", "one")
	in.ok("image", "delete", "busy")
	in.want(0, "of the parent\n", "", "exec", "two", "cat /root/file")
	in.want(0, "of one\n", "", "run", "--image", "still", "cat /root/file")
	in.ok("restart", "two")
	in.want(0, "of the parent\n", "", "exec", "two", "cat /root/file")
	if text := in.ok("image", "list"); !strings.Contains(text, "still") || !strings.Contains(text, "boots") || strings.Contains(text, "busy") {
		t.Errorf("image list prints %q", text)
	}
}

func imageFaults(t *testing.T, in *install) {
	t.Helper()
	in.want(1, "", `"still" is there already`, "fork", "two", "still")
	in.want(1, "", "not a VM name", "fork", "two", "../x")
	in.want(1, "", `there is no image "none"`, "create", "--image", "none")
	in.want(1, "", "keeps that size", "create", "--image", "still", "--disk", "1G")
	in.want(1, "", "there is no VM", "fork", "nobody", "x")
	in.ok("fork", "two", "warm")
	// Another size of memory does not fit what was saved: it boots, and says so.
	in.ok("create", "-n", "large", "--image", "warm", "--ram", "600M")
	if vm := in.info("large"); vm.RAMMB != 600 || len(vm.Notes) != 1 || !strings.Contains(vm.Notes[0], "sizes have changed") {
		t.Errorf("another size: %+v", vm)
	}
	flip(t, filepath.Join(in.home.Images(), "warm", "suspended", "state"), 5000)
	in.ok("create", "-n", "other", "--image", "warm")
	if vm := in.info("other"); len(vm.Notes) != 1 || !strings.Contains(vm.Notes[0], "damaged") || vm.Status != lifecycle.Running {
		t.Errorf("damaged memory: %+v", vm)
	}
	archive := filepath.Join(t.TempDir(), "archive")
	in.ok("image", "export", "still", archive)
	in.want(1, "", "is there already", "image", "export", "still", archive)
	in.ok("image", "import", "moved", archive)
	in.want(0, "of one\n", "", "run", "--image", "moved", "cat /root/file")
	packed, err := os.Stat(archive)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, archive, packed.Size()/2)
	in.want(1, "", "no image that capsem exported", "image", "import", "bad", archive)
	flip(t, filepath.Join(in.home.Images(), "still", "system.qcow2"), 100_000)
	in.want(1, "", "image still is damaged", "create", "--image", "still")
	if text := in.ok("list", "-q"); strings.Contains(text, "tmp") {
		t.Errorf("a VM of a damaged image is left: %q", text)
	}
}
