package sandbox_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"capsem/core/mcp/sandbox"
)

// TestMain lets the test's binary be a process that is locked up and tries what it can.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		probe(os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

// probe locks the process up and tells what works.
func probe(args []string) {
	kind, file, socket, tcp := args[0], args[1], args[2], args[3]
	parent, _ := strconv.Atoi(args[4])
	lock := map[string]func() error{"none": func() error { return nil }, "network": sandbox.LockNetworkOnly, "all": sandbox.LockAll}[kind]
	out := map[string]string{}
	try := func(what string, do func() error) {
		out[what] = "works"
		if err := do(); err != nil {
			out[what] = err.Error()
		}
	}
	closing := func(c net.Conn, err error) error {
		if err == nil {
			err = c.Close()
		}
		return err
	}
	try("lock", lock)
	done := make(chan struct{})
	go func() { // on whichever thread this is
		defer close(done)
		try("open", func() error { f, err := os.Open(file); _ = f.Close(); return err })
		try("create", func() error { return os.WriteFile(file+".new", nil, 0o600) })
		try("unlink", func() error { return os.Remove(file + ".new") })
		try("exec", func() error { return exec.Command("/bin/true").Run() })
		try("unix", func() error { return closing(net.Dial("unix", socket)) })
		try("tcp", func() error { return closing(net.Dial("tcp", tcp)) })
		try("udp", func() error { return closing(net.Dial("udp", "127.0.0.1:53")) })
		try("listen", func() error {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err == nil {
				err = l.Close()
			}
			return err
		})
		try("signal", func() error { return syscall.Kill(parent, 0) })
		try("ptrace", func() error { return unix.PtraceSeize(parent) })
		try("io_uring", func() error {
			var params [120]byte
			_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
			if errno != 0 {
				return errno
			}
			return nil
		})
	}()
	<-done
	body, _ := json.Marshal(out)
	fmt.Println(string(body))
}

func TestLockedProcessReachesNothingElse(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	service, err := net.Listen("unix", filepath.Join(dir, "service.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(kind string) map[string]string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), exe, "probe", kind, file, service.Addr().String(), web.Addr().String(), strconv.Itoa(os.Getpid()))
		cmd.Env, cmd.Stderr = []string{}, os.Stderr
		body, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v, %s", kind, err, body)
		}
		out := map[string]string{}
		if err := json.Unmarshal(body, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	all := []string{"open", "create", "unlink", "exec", "unix", "tcp", "udp", "listen"}
	for _, what := range all { // else the test below shows nothing
		if got := run("none")[what]; got != "works" {
			t.Errorf("without a lock, %s: %s", what, got)
		}
	}
	for kind, allowed := range map[string]string{"network": "tcp", "all": ""} {
		out := run(kind)
		if out["lock"] != "works" {
			t.Fatalf("%s: %s", kind, out["lock"])
		}
		for _, what := range append(all, "signal", "ptrace", "io_uring") {
			if (out[what] == "works") != (what == allowed) {
				t.Errorf("locked (%s), %s: %s", kind, what, out[what])
			}
		}
	}
}
