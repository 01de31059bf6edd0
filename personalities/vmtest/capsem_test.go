//go:build vm

// Package vmtest uses capsem as its users do: the real command line, service, workers and guests.
package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsem/core/assets/assetstest"
	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/personalities"
)

// patience bounds every wait for something that is to happen.
const patience = 2 * time.Minute

// TestMain lets this binary be capsem under each of its names, as main.go does.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == mcpTestServer {
		serveTestTools()
		return
	}
	if !strings.HasPrefix(filepath.Base(os.Args[0]), "capsem") {
		os.Exit(m.Run())
	}
	run, args := personalities.Choose(os.Args)
	err := run(context.Background(), entry.Env{
		Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if line := fault.Text(err); line != "" && fault.ExitCode(err) != fault.ExitInterrupted {
		fmt.Fprintln(os.Stderr, "capsem:", line)
	}
	os.Exit(fault.ExitCode(err))
}

// install is one CAPSEM_HOME with a capsem to call.
type install struct {
	t    *testing.T
	home paths.Home
	bin  string
}

// newInstall makes a home with the minimal image; its service is stopped and its VMs are destroyed at the end.
func newInstall(t *testing.T, home paths.Home) *install {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in := &install{t: t, home: home, bin: filepath.Join(t.TempDir(), "capsem")}
	if err := os.Symlink(self, in.bin); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		for _, args := range [][]string{{"purge", "--all", "-y"}, {"service", "stop"}} {
			if out, err := in.command(ctx, args...).CombinedOutput(); err != nil {
				t.Errorf("capsem %v: %v: %s", args, err, out)
			}
		}
		if t.Failed() {
			text, _ := os.ReadFile(home.ServiceLog())
			t.Logf("service log:\n%s", text[max(0, len(text)-3000):])
		}
	})
	return in
}

func (in *install) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, in.bin, args...)
	cmd.Env = append(os.Environ(), "CAPSEM_HOME="+in.home.Dir())
	return cmd
}

// result is what a call of capsem left.
type result struct {
	stdout, stderr string
	code           int
}

// capsem calls it with input.
func (in *install) capsem(input string, args ...string) result {
	in.t.Helper()
	ctx, cancel := context.WithTimeout(in.t.Context(), patience)
	defer cancel()
	cmd := in.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		in.t.Fatalf("capsem %v: %v", args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok calls capsem, which must succeed, and returns what it printed.
func (in *install) ok(args ...string) string {
	in.t.Helper()
	r := in.capsem("", args...)
	if r.code != 0 {
		in.t.Fatalf("capsem %v ended with %d: %s%s", args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// want checks one call.
func (in *install) want(code int, stdout, stderr string, args ...string) {
	in.t.Helper()
	r := in.capsem("", args...)
	if r.code != code || (stdout != "*" && r.stdout != stdout) || !strings.Contains(r.stderr, stderr) {
		in.t.Errorf("capsem %v: code %d, stdout %q, stderr %q; want %d, %q, %q", args, r.code, r.stdout, r.stderr, code, stdout, stderr)
	}
}

// until waits until a condition holds.
func (in *install) until(what string, holds func() bool) {
	in.t.Helper()
	over := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-over:
			in.t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func (in *install) vms() []string { return strings.Fields(in.ok("list", "-q")) }

func TestRunIsACommandInAVMOfItsOwn(t *testing.T) {
	in := newInstall(t, assetstest.Home(t))
	in.want(0, "42\n", "", "run", `python3 -c "print(6*7)"`)
	in.want(3, "", "", "run", "--ram", "512M", "--cpu", "1", "exit 3")
	r := in.capsem("some input", "run", "--ram", "512M", "-e", "GREETING=hello", "-w", "/tmp",
		"cat; echo; cat /proc/net/dev | tail -n +3 | cut -d: -f1 | xargs; pwd; echo $GREETING; echo to-stderr >&2; kill -9 $$")
	if want := "some input\nlo dummy0\n/tmp\nhello\n"; r.stdout != want || !strings.Contains(r.stderr, "to-stderr") || r.code != 137 {
		t.Errorf("got %+v, want %q", r, want)
	}
	interrupted(t, in)
	if left := in.vms(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if dirs, err := os.ReadDir(in.home.Sessions()); err != nil || len(dirs) != 0 {
		t.Errorf("left on disk: %v %v", dirs, err)
	}
}

// interrupted presses Ctrl-C in a run.
func interrupted(t *testing.T, in *install) {
	t.Helper()
	cmd := in.command(t.Context(), "run", "--ram", "512M", "echo started; sleep 1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "started\n" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // looked at below
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("an interrupted run ends with %d", code)
	}
}

func TestANamedVMKeepsItsFilesAndTakesAllCommands(t *testing.T) {
	in := newInstall(t, assetstest.Home(t))
	if got := in.ok("create", "-n", "box", "--ram", "512M", "--cpu", "1", "-e", "FROM=create"); got != "box\n" {
		t.Fatalf("create printed %q", got)
	}
	for _, part := range []struct {
		name string
		test func(*testing.T, *install)
	}{
		{"exec", execs},
		{"bad input", badInput},
		{"files", files},
		{"jobs", jobs},
		{"forward", forward},
		{"terminal", terminal},
		{"stop and resume", stopAndResume},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, &install{t, in.home, in.bin}) })
	}
}

func execs(t *testing.T, in *install) {
	t.Helper()
	in.want(0, "create\n", "", "exec", "box", "echo $FROM")
	in.want(0, "/etc\n", "", "exec", "-w", "/etc", "box", "--", "pwd")
	in.want(127, "", "nope: command not found", "exec", "box", "--", "nope")
	in.want(127, "", "nope: command not found", "exec", "box", "nope")
	in.want(126, "", "/etc/passwd: permission denied", "exec", "box", "--", "/etc/passwd")
	in.want(124, "*", "was ended after", "exec", "--timeout", "1", "box", "sleep 100")
	in.want(0, "uid=0(root) gid=0(root) groups=0(root)\n", "", "exec", "box", "id")
	r := in.capsem(strings.Repeat("line\n", 100000), "exec", "box", "wc -l")
	if r.stdout != "100000\n" {
		t.Errorf("got %+v", r)
	}
}

func badInput(_ *testing.T, in *install) {
	in.want(125, "", "there is no VM", "exec", "nobody", "true")
	in.want(1, "", "there is no VM", "info", "nobody")
	in.want(1, "", "already", "create", "-n", "box")
	in.want(1, "", "is not a VM name", "create", "-n", "../box")
	in.want(1, "", "is not a VM name", "create", "-n", strings.Repeat("x", 65))
	in.want(1, "", "is outside 1-8", "create", "--cpu", "9")
	in.want(1, "", "outside 256-16384", "create", "--ram", "64M")
	in.want(1, "", "did you mean", "crate")
	in.want(1, "", "needs a terminal", "shell", "box")
}

func files(t *testing.T, in *install) {
	local := t.TempDir()
	content := bytes.Repeat([]byte{0, 1, 2, 255, '\n'}, 300000)
	if err := os.WriteFile(filepath.Join(local, "data"), content, 0o750); err != nil {
		t.Fatal(err)
	}
	in.want(1, "", "there is no directory /root/in", "cp", filepath.Join(local, "data"), "box:/root/in/data")
	in.ok("exec", "box", "mkdir in")
	in.ok("cp", filepath.Join(local, "data"), "box:/root/in/")
	in.want(0, "-rwxr-x--- 1500000\n", "", "exec", "box", "stat -c '%A %s' in/data")
	in.ok("cp", "box:/root/in/data", filepath.Join(local, "back"))
	if got, err := os.ReadFile(filepath.Join(local, "back")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes came back (%v)", len(got), err)
	}
	tar := exec.CommandContext(t.Context(), "tar", "c", "-C", local, "data")
	archive, err := tar.Output()
	if err != nil {
		t.Fatal(err)
	}
	if r := in.capsem(string(archive), "exec", "-w", "/tmp", "box", "--", "tar", "x"); r.code != 0 {
		t.Errorf("tar x: %+v", r)
	}
	in.want(0, "1500000 /tmp/data\n", "", "exec", "box", "wc -c /tmp/data")
}

func jobs(t *testing.T, in *install) {
	id := strings.TrimSpace(in.ok("exec", "-d", "box", "echo detached; sleep 1000"))
	if text := in.ok("jobs", "box"); !strings.Contains(text, id) {
		t.Errorf("jobs prints %q", text)
	}
	in.until("the job's output", func() bool { return strings.Contains(in.capsem("", "jobs", "box", id).stdout, "detached") })
	in.ok("jobs", "--cancel", "box", id)
	in.until("the end of the job", func() bool { return !strings.Contains(in.ok("exec", "box", "ps ax"), "sleep 1000") })
}

func forward(t *testing.T, in *install) {
	in.ok("exec", "-d", "box", "python3 -c \"import socket\nl=socket.create_server(('127.0.0.1',8099))\nwhile 1:\n c,_=l.accept(); c.sendall(b'from the guest'); c.close()\"")
	in.until("the guest's listener", func() bool { return strings.Contains(in.ok("exec", "box", "cat /proc/net/tcp"), ":1FA3") })
	cmd := in.command(t.Context(), "forward", "box", "38099:8099")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	got, err := exec.CommandContext(t.Context(), "bash", "-c", "cat < /dev/tcp/127.0.0.1/38099").Output()
	if err != nil || string(got) != "from the guest" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait() // interrupted
}

func stopAndResume(t *testing.T, in *install) {
	in.ok("exec", "box", "echo kept > /root/kept")
	in.ok("stop", "box")
	if text := in.ok("list"); !strings.Contains(text, "Stopped") {
		t.Errorf("list prints %q", text)
	}
	in.want(125, "", "Stopped", "exec", "box", "true")
	in.ok("resume", "box")
	in.want(0, "kept\n", "", "exec", "box", "cat /root/kept")
	in.ok("delete", "box")
	if left := in.vms(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
