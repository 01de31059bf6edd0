//go:build vm

package vmtest

import (
	"bytes"
	_ "embed"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestTheWorkspaceIsOneDirectoryOnBothSides(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1")
	dir := in.home.Persistent("vm").Workspace()
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in.ok("exec", "vm", "echo of the guest > file; mkdir -p a/b; ln -s file link; echo x > $(printf 'n\\377me'); printf '#!/bin/sh\\necho ran\\n' > run; chmod 755 run")
	if got := read("file"); got != "of the guest\n" {
		t.Errorf("the host reads %q", got)
	}
	if info, err := os.Lstat(filepath.Join(dir, "run")); err != nil || info.Mode() != 0o755 {
		t.Errorf("the script: %v, %v", info, err)
	}
	if got := read("n\xffme"); got != "x\n" {
		t.Errorf("a name that is no text: %q", got)
	}
	in.want(0, "ran\nRAN\n", "", "exec", "vm", "./run; /root/run | tr a-z A-Z")
	in.want(0, "ran\n", "", "exec", "vm", "--", "./run")
	for range 3 { // also what the guest has in its cache
		write("file", "longer, and of the host\n")
		in.until("the host's edit", func() bool { return in.ok("exec", "vm", "cat file") == "longer, and of the host\n" })
		in.ok("exec", "vm", "echo short > file")
		if got := read("file"); got != "short\n" {
			t.Errorf("the host reads %q", got)
		}
	}
	told := in.ok("exec", "vm", "for i in $(seq 40); do echo $i > n$i; echo $i; done")
	for n := range strings.FieldsSeq(told) { // who is told of a file finds it
		if got := read("n" + n); got != n+"\n" {
			t.Errorf("n%s has %q", n, got)
		}
	}
	in.want(0, "0 root\n", "", "exec", "vm", "stat -c '%u %U' file")
	write("a/new", "new\n")
	in.until("the host's new file", func() bool { return in.ok("exec", "vm", "ls a") == "b\nnew\n" })
	programs(t, in, dir)
	secrets(t, in, dir)
	savedWithTheVM(t, in)
	mounted(t, in)
}

// mounted shares further directories.
func mounted(t *testing.T, in *install) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"rw/file": "one\n", "ro/file": "two\n"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in.ok("create", "-n", "sharing", "--ram", "512M", "--cpu", "1", "--mount", dir+"/rw:/root/code", "--mount", dir+"/ro:ro")
	in.want(0, "one\ntwo\n", "", "exec", "sharing", "cat /root/code/file /mnt/ro/file; echo three > /root/code/new")
	in.want(1, "", "Read-only file system", "exec", "sharing", "echo x > /mnt/ro/file")
	if text, err := os.ReadFile(filepath.Join(dir, "rw", "new")); err != nil || string(text) != "three\n" {
		t.Errorf("the host reads %q, %v", text, err)
	}
	in.ok("suspend", "sharing")
	if err := os.Rename(filepath.Join(dir, "ro"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	in.want(1, "", "cannot be opened", "resume", "sharing")
	if err := os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "ro")); err != nil {
		t.Fatal(err)
	}
	in.ok("resume", "sharing")
	in.want(0, "one\ntwo\n", "", "exec", "sharing", "cat /root/code/file /mnt/ro/file")
}

//go:embed testdata/posix.py
var posix []byte

// programs runs what programs rely on, and random operations on a file whose end both sides must agree on.
func programs(t *testing.T, in *install, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "posix.py"), posix, 0o600); err != nil {
		t.Fatal(err)
	}
	seed := strconv.Itoa(rand.IntN(1 << 30))
	if r := in.capsem("", "exec", "vm", "python3 posix.py "+seed); r.code != 0 {
		t.Errorf("seed %s: %+v", seed, r)
	}
	file, err := os.ReadFile(filepath.Join(dir, "t", "fsx"))
	model, err2 := os.ReadFile(filepath.Join(dir, "t", "fsx.model"))
	if err := errors.Join(err, err2); err != nil || !bytes.Equal(file, model) {
		t.Errorf("seed %s: the host sees another file of %d bytes, not %d: %v", seed, len(file), len(model), err)
	}
}

// secrets checks that links in the workspace lead nowhere on the host.
func secrets(t *testing.T, in *install, dir string) {
	t.Helper()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	in.want(1, "", "No such file", "exec", "vm", "cat out")
	in.ok("exec", "vm", "rm out; ln -s "+outside+" out2; echo overwritten > out2 2>/dev/null || true")
	if text, err := os.ReadFile(outside); err != nil || string(text) != "secret" {
		t.Errorf("outside: %q, %v", text, err)
	}
}

// savedWithTheVM checks that open files go on in a VM that was saved, and in one that was forked.
func savedWithTheVM(t *testing.T, in *install) {
	t.Helper()
	in.ok("exec", "-d", "vm", `exec 9> /root/log; i=0; while :; do i=$((i+1)); echo $i >&9; sleep 0.05; done`)
	lines := func(id string) int { return strings.Count(in.ok("exec", id, "cat /root/log"), "\n") }
	in.until("lines", func() bool { return in.capsem("", "exec", "vm", "test -s /root/log").code == 0 })
	in.ok("suspend", "vm")
	if err := os.WriteFile(filepath.Join(in.home.Persistent("vm").Workspace(), "meanwhile"), []byte("seen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in.ok("resume", "vm")
	before := lines("vm")
	in.until("more lines after the resume", func() bool { return lines("vm") > before })
	in.want(0, "seen\n", "", "exec", "vm", "cat meanwhile")
	in.ok("checkpoint", "vm", "point")
	in.ok("fork", "vm", "image")
	in.ok("create", "-n", "child", "--image", "image")
	before = lines("child")
	in.until("more lines in the child", func() bool { return lines("child") > before })
	in.ok("exec", "child", "rm -rf /root/a /root/file")
	in.want(0, "short\n", "", "exec", "vm", "cat file; test -d a")
	in.ok("exec", "vm", "rm -rf a file; echo 1 > after")
	in.ok("rewind", "vm", "point")
	in.want(0, "short\n", "", "exec", "vm", "cat file; test -d a; test ! -e after")
	before = lines("vm")
	in.until("more lines after the rewind", func() bool { return lines("vm") > before })
	in.ok("restart", "vm")
	in.want(0, "short\n", "", "exec", "vm", "cat file")
	if text, err := os.ReadFile(filepath.Join(in.home.Persistent("child").Workspace(), "log")); err != nil || len(text) == 0 {
		t.Errorf("the child's workspace: %q, %v", text, err)
	}
}
