//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"capsem/core/api"
	"capsem/core/template"
)

func (in *install) info(id string) (vm api.SandboxInfo) {
	in.t.Helper()
	if err := json.Unmarshal([]byte(in.ok("info", id, "--json")), &vm); err != nil {
		in.t.Fatal(err)
	}
	return vm
}

// templates is how many there are and whether one is being made.
func (in *install) templates() (keys []string, making bool) {
	in.t.Helper()
	var reply api.TemplatesReply
	if err := json.Unmarshal([]byte(in.ok("templates", "list", "--json")), &reply); err != nil {
		in.t.Fatal(err)
	}
	for _, t := range reply.Templates {
		keys = append(keys, t.Key)
	}
	return keys, reply.Making
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func TestVMsStartFromATemplateAndAreNoTwins(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	sizes := []string{"--ram", "512M", "--cpu", "1"}
	if got := in.ok(append([]string{"create", "-n", "first"}, sizes...)...); got != "first\n" || in.info("first").Warm {
		t.Errorf("the first: %q, %+v", got, in.info("first"))
	}
	in.until("a template", func() bool {
		keys, making := in.templates()
		return len(keys) == 1 && !making
	})
	twins(in, sizes)
	if in.ok("purge", "--all", "-y"); len(in.vms()) != 0 {
		t.Error("VMs are left")
	}
	in.ok(append([]string{"create", "-n", "cold", "--cold"}, sizes...)...)
	if in.info("cold").Warm {
		t.Error("--cold starts from a template")
	}
	in.ok("delete", "cold")
	damaged(in, sizes)
	abandoned(in)
}

// twins starts eight at once: whatever is to be one of a kind must differ.
func twins(in *install, sizes []string) {
	in.t.Helper()
	const say = `cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id /etc/machine-id; hostname; mktemp -u
python3 -c 'import random, ssl, tempfile; print(random.random()); print(ssl.RAND_bytes(8).hex()); print(tempfile.mktemp())'; head -c 8 /dev/urandom | od -An -tx8; openssl ecparam -name prime256v1 -genkey -noout | sha256sum`
	var mu sync.Mutex
	seen := map[string]string{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id := fmt.Sprintf("clone-%d", i)
			in.ok(append([]string{"create", "-n", id}, sizes...)...)
			if vm := in.info(id); !vm.Warm {
				in.t.Errorf("%s booted: %+v", id, vm)
			}
			lines := strings.Split(strings.TrimSpace(in.ok("exec", id, say)), "\n")
			if len(lines) != 10 || lines[3] != id {
				in.t.Errorf("%s says %q", id, lines)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, line := range lines {
				if other := seen[line]; other != "" {
					in.t.Errorf("%s and %s both have %s", id, other, line)
				}
				seen[line] = id
			}
		})
	}
	wg.Wait()
	in.ok("exec", "clone-3", "echo kept > /root/file; sync")
	in.ok("restart", "clone-3")
	if vm := in.info("clone-3"); vm.Warm || in.ok("exec", "clone-3", "cat /root/file") != "kept\n" {
		in.t.Errorf("after a restart: %+v", vm)
	}
}

// damaged changes a byte of each file: the VM boots, and the template is made again.
func damaged(in *install, sizes []string) {
	in.t.Helper()
	for _, name := range []string{template.RAMFile, template.DiskFile, template.StateFile} {
		in.until("a template", func() bool {
			keys, making := in.templates()
			return len(keys) == 1 && !making
		})
		keys, _ := in.templates()
		in.ok("service", "stop") // it has the memory
		flip(in.t, filepath.Join(template.Dir(in.home), keys[0], name), 0)
		in.ok(append([]string{"create", "-n", "d-" + name[:3]}, sizes...)...)
		if vm := in.info("d-" + name[:3]); vm.Warm {
			in.t.Errorf("a damaged %s is used", name)
		}
		in.ok("delete", "d-"+name[:3])
	}
}

// abandoned kills who takes part in making a template: nothing of it stays, and the next one succeeds.
func abandoned(in *install) {
	in.t.Helper()
	in.ok("templates", "prune")
	for _, victim := range []string{"maker", "qemu", "service"} {
		cmd := in.command(in.t.Context(), "templates", "rebuild", "--ram", "512M", "--cpu", "1")
		if err := cmd.Start(); err != nil {
			in.t.Fatal(err)
		}
		var drafts []string
		in.until("a draft with a disk", func() bool {
			drafts, _ = filepath.Glob(filepath.Join(template.Dir(in.home), "new-*", "system.qcow2"))
			return len(drafts) == 1
		})
		pid := maker(in, filepath.Dir(drafts[0]))
		switch victim {
		case "service":
			in.killService()
		case "qemu":
			pid = childOf(in, pid)
			fallthrough
		default:
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				in.t.Fatal(err)
			}
		}
		_ = cmd.Wait() // looked at below
		if code := cmd.ProcessState.ExitCode(); code == 0 {
			in.t.Errorf("a template was made without its %s", victim)
		}
		in.ok("templates", "list") // starts a service where there is none
		in.until("nothing half-made to be left without the "+victim, func() bool {
			left, _ := filepath.Glob(filepath.Join(template.Dir(in.home), "new-*"))
			return len(left) == 0
		})
		keys, _ := in.templates()
		if victim != "service" && len(keys) != 0 { // the maker goes on without its service
			in.t.Errorf("without the %s: %v", victim, keys)
		}
		in.ok("templates", "prune")
	}
	in.ok("templates", "rebuild", "--ram", "512M", "--cpu", "1")
	if keys, _ := in.templates(); len(keys) != 1 {
		in.t.Errorf("templates: %v", keys)
	}
}

// childOf is the process that another has started, once it has.
func childOf(in *install, pid int) (child int) {
	in.t.Helper()
	in.until("a child of the maker", func() bool {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, task := range tasks {
			text, _ := os.ReadFile(task)
			if _, err := fmt.Sscan(string(text), &child); err == nil {
				return true
			}
		}
		return false
	})
	return child
}

// maker is the process that makes a template in a directory.
func maker(in *install, dir string) int {
	in.t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		in.t.Fatal(err)
	}
	for _, path := range lines {
		text, _ := os.ReadFile(path)
		if strings.Contains(string(text), dir) && strings.Contains(string(text), "--make-template") {
			var pid int
			if _, err := fmt.Sscanf(path, "/proc/%d/cmdline", &pid); err == nil {
				return pid
			}
		}
	}
	in.t.Fatalf("nobody makes a template in %s", dir)
	return 0
}
