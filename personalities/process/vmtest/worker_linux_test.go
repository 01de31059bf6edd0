//go:build vm

// Package vmtest boots real VMs in real worker processes, without the service.
package vmtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsem/core/assets"
	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/workerclient"
	"capsem/personalities/process"
)

// patience is for what must happen; no test waits for it when all is well.
const patience = 3 * time.Minute

// asWorker is the first word of a command line that makes this test binary a worker, which has no environment to tell it.
const asWorker = "be-a-worker"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asWorker {
		err := process.Run(context.Background(), entry.Env{Args: os.Args[2:], Stderr: os.Stderr, Getenv: os.Getenv})
		if err != nil {
			fmt.Fprintln(os.Stderr, fault.Line(err))
		}
		os.Exit(fault.ExitCode(err))
	}
	os.Exit(m.Run())
}

// vm is a VM with its worker.
type vm struct {
	t    *testing.T
	home paths.Home
	dir  paths.VM
	id   string
	cmd  *exec.Cmd
	over chan struct{} // closed when the worker has ended
}

// boot starts a worker as the service does.
func boot(t *testing.T, home paths.Home, id string) *vm {
	t.Helper()
	set, err := assets.Current(home, arch())
	if err != nil {
		t.Fatal(err)
	}
	v := &vm{t: t, home: home, id: id, dir: home.Session(id)}
	if err := errors.Join(os.MkdirAll(v.dir.Dir(), 0o700), os.MkdirAll(home.Instances(), 0o700)); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(proto.VMSpec{
		ID: id, CPUs: 1, MemoryMB: 512, DiskMB: 1024, Env: map[string]string{"OF_VM": id}, AssetVersion: set.Version,
		Accelerator: "auto", MachineID: strings.Repeat("0a", 16), ReadyTimeoutMS: patience.Milliseconds(),
		LogLevel: "debug",
	})
	if err == nil {
		err = os.WriteFile(v.dir.Spec(), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	v.launch()
	return v
}

func (v *vm) launch() {
	v.t.Helper()
	self, err := os.Executable()
	if err != nil {
		v.t.Fatal(err)
	}
	log, err := os.OpenFile(v.dir.ProcessLog(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		v.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(self, asWorker, "--home", v.home.Dir(), "--dir", v.dir.Dir())
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = []string{}, "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ends is looked at where it matters
		close(over)
	}()
	v.cmd, v.over = cmd, over
	v.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-over
		if v.t.Failed() {
			log, _ := os.ReadFile(v.dir.ProcessLog())
			serial, _ := os.ReadFile(v.dir.SerialLog())
			v.t.Logf("%s: log:\n%s\nconsole:\n%s", v.id, tail(log), tail(serial))
		}
	})
}

func tail(b []byte) []byte { return b[max(0, len(b)-4000):] }

func (v *vm) dial() *workerclient.Conn {
	v.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		c, err := workerclient.Dial(v.t.Context(), v.home.InstanceSocket(v.id))
		if err == nil {
			v.t.Cleanup(func() { _ = c.Close() })
			return c
		}
		select {
		case <-tick.C:
		case <-v.over:
			v.t.Fatalf("the worker has ended: %v", err)
		case <-limit:
			v.t.Fatal(err)
		}
	}
}

// until waits for a status.
func (v *vm) until(ok func(proto.WorkerStatus) bool) proto.WorkerStatus {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), patience)
	defer cancel()
	changes, err := v.dial().Watch(ctx)
	if err != nil {
		v.t.Fatal(err)
	}
	var last proto.WorkerStatus
	for last = range changes {
		if ok(last) {
			return last
		}
	}
	v.t.Fatalf("it never comes; the last status is %+v", last)
	return last
}

func (v *vm) ready() proto.WorkerStatus {
	v.t.Helper()
	return v.until(func(st proto.WorkerStatus) bool { return st.State == lifecycle.Running })
}

// left waits for the worker's end and reads what it left.
func (v *vm) left() (st proto.WorkerStatus) {
	v.t.Helper()
	select {
	case <-v.over:
	case <-time.After(patience):
		v.t.Fatal("the worker does not end")
	}
	text, err := os.ReadFile(v.dir.Status())
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	return st
}

func (v *vm) start(req *proto.ExecRequest) net.Conn {
	v.t.Helper()
	conn, err := v.dial().Stream(v.t.Context(), proto.WorkerRequest{Op: proto.OpExec, Exec: req})
	if err != nil {
		v.t.Fatal(err)
	}
	return conn
}

// result is a command's end.
type result struct {
	stdout, stderr string
	exit           proto.ExitStatus
	err            error
}

func collect(conn net.Conn) (r result) {
	defer conn.Close()
	frames := proto.NewStreamReader(conn)
	for {
		kind, data, err := frames.Next()
		if err != nil {
			r.err = err
			return r
		}
		switch kind {
		case proto.KindStdout:
			r.stdout += string(data)
		case proto.KindStderr:
			r.stderr += string(data)
		case proto.KindError:
			r.err = errors.New(string(data))
			return r
		case proto.KindExit:
			r.err = json.Unmarshal(data, &r.exit)
			return r
		}
	}
}

func (v *vm) run(command string) result {
	v.t.Helper()
	return collect(v.start(&proto.ExecRequest{Command: command}))
}

func (v *vm) must(command string) string {
	v.t.Helper()
	r := v.run(command)
	if r.err != nil || r.exit.Code != 0 {
		v.t.Fatalf("%s: %+v", command, r)
	}
	return r.stdout
}

// resident is the memory of a process in bytes, without the pages of files: those of the program are shared by all workers.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	if err != nil {
		t.Fatal(err)
	}
	words := bytes.Fields(text)
	pages, err := strconv.ParseInt(string(words[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	shared, err := strconv.ParseInt(string(words[2]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return (pages - shared) * int64(os.Getpagesize())
}

// gone waits for the end of a process that is nobody's child here, and returns how long it took.
func gone(t *testing.T, pid int) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil || bytes.Contains(text, []byte(") Z ")) {
			return time.Since(begin)
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("process %d does not end", pid)
		}
	}
}
