// Package servicetest is a worker without a VM, as a process of its own, for tests of the service and of what stands on it: it
// speaks the workers' protocol, holds a worker's lock, and "runs" a few commands that tests need.
package servicetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"capsem/core/atomicfile"
	"capsem/core/buildinfo"
	"capsem/core/guard"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/safesocket"
)

// Variable is the variable of a VM's environment that makes its worker misbehave.
const Variable = "FAKE"

// What Variable may be.
const (
	// NeverReady boots and boots.
	NeverReady = "never-ready"
	// CrashAtStart ends before it listens.
	CrashAtStart = "crash-at-start"
	// FailBoot goes from Booting to Defunct.
	FailBoot = "fail-boot"
	// Stubborn does not answer requests to end.
	Stubborn = "stubborn"
	// Foreign greets with another protocol.
	Foreign = "foreign"
)

// Worker is the main function of the fake: call it from TestMain when the test binary was started with --home and --dir.
// It returns the exit code.
func Worker(args []string) int {
	if len(args) != 4 || args[0] != "--home" || args[2] != "--dir" {
		fmt.Fprintln(os.Stderr, "bad arguments", args)
		return 2
	}
	w := &worker{home: paths.Home(args[1]), dir: paths.VM(args[3]), over: make(chan struct{}), changed: make(chan struct{})}
	if err := w.run(context.Background()); err != nil { //nolint:forbidigo // a main function
		fmt.Fprintln(os.Stderr, "fake worker:", err)
		return 1
	}
	return 0
}

type worker struct {
	home paths.Home
	over chan struct{}
	once sync.Once

	mu      sync.Mutex
	dir     paths.VM
	spec    proto.VMSpec
	lock    *guard.Lock
	status  proto.WorkerStatus
	changed chan struct{}
	jobs    []*job
	memory  string
	env     map[string]string
	servers map[string]proto.Secret
	// unrenewed are the tokens for which the service says there is no next one.
	unrenewed map[string]string
	// parts are the credentials of which more are to come.
	parts *proto.Credentials
}

func (w *worker) run(ctx context.Context) error {
	text, err := os.ReadFile(w.dir.Spec())
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &w.spec); err != nil {
		return err
	}
	if w.spec.Env[Variable] == CrashAtStart {
		return errors.New("the fake crashed as it was told to")
	}
	if w.lock, err = guard.Acquire(w.home.InstanceLock(w.spec.ID)); err != nil {
		return err
	}
	l, err := safesocket.Listen(ctx, w.home.InstanceSocket(w.spec.ID))
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "fake worker of", w.spec.ID, "in", w.dir)
	if err := os.WriteFile(w.dir.SerialLog(), []byte("console of "+w.spec.ID+"\n"), 0o600); err != nil {
		return err
	}
	w.status = proto.WorkerStatus{
		ID: w.spec.ID, Name: w.spec.Name, PID: os.Getpid(), State: lifecycle.Booting, StartedNS: time.Now().UnixNano(), Step: "pretending",
		Accelerator: "fake", Carrier: "fake",
	}
	if err := w.powerOn(); err != nil {
		return err
	}
	w.set(lifecycle.Booting, "")
	go w.boot()
	go w.accept(l)
	<-w.over
	w.mu.Lock()
	id := w.spec.ID
	w.mu.Unlock()
	return errors.Join(l.Close(), safesocket.Remove(w.home.InstanceSocket(id)), w.lock.Release())
}

func (w *worker) boot() {
	switch w.spec.Env[Variable] {
	case NeverReady:
	case FailBoot:
		w.set(lifecycle.Defunct, "the guest did not answer; console: panic - not syncing")
		w.end()
	default:
		w.set(lifecycle.Running, "")
	}
}

func (w *worker) end() { w.once.Do(func() { close(w.over) }) }

// set goes to a state, writes it down and tells those who watch.
func (w *worker) set(s lifecycle.State, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.State, w.status.LastError = s, why
	if s == lifecycle.Running {
		w.status.ReadyNS, w.status.Step = time.Now().UnixNano(), ""
	}
	text, err := json.Marshal(w.status)
	if err == nil {
		err = atomicfile.Write(filepath.Join(w.dir.Dir(), "status.json"), text, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake worker:", err)
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *worker) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			w.serve(conn)
		}()
	}
}

func (w *worker) serve(conn net.Conn) {
	hello := proto.WorkerHello{Protocol: proto.Version, Build: buildinfo.Version, PID: os.Getpid(), ID: w.spec.ID, BootNonce: "fake"}
	if w.spec.Env[Variable] == Foreign {
		hello.Protocol = 99
	}
	var theirs proto.WorkerHello
	if proto.ReadFrame(conn, proto.MaxHeader, &theirs) != nil || proto.WriteFrame(conn, hello) != nil {
		return
	}
	for {
		var req proto.WorkerRequest
		if proto.ReadFrame(conn, proto.MaxFrame, &req) != nil {
			return
		}
		if err := req.Validate(); err != nil {
			_ = proto.WriteFrame(conn, refusal("invalid", err.Error()))
			return
		}
		if w.stream(conn, req) {
			return
		}
		reply := w.answer(req)
		suspended := req.Op == proto.OpSuspend && reply.Error == nil
		if suspended {
			w.set(lifecycle.Suspended, "")
		}
		err := proto.WriteFrame(conn, reply)
		if suspended { // not before the answer is out
			w.end()
		}
		if err != nil {
			return
		}
		if req.Op == proto.OpKill || req.Op == proto.OpStop {
			w.down(req.Op)
		}
	}
}

func refusal(code, text string) proto.WorkerReply {
	return proto.WorkerReply{Error: &proto.StreamError{Code: code, Message: text}}
}

// down ends the fake VM.
func (w *worker) down(op proto.WorkerOp) {
	if w.spec.Env[Variable] == Stubborn {
		return
	}
	if op == proto.OpStop {
		w.set(lifecycle.Stopping, "")
	}
	w.set(lifecycle.Stopped, "")
	w.end()
}

func (w *worker) answer(req proto.WorkerRequest) proto.WorkerReply {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch req.Op {
	case proto.OpStatus:
		st := w.status
		return proto.WorkerReply{Status: &st}
	case proto.OpCredentials:
		all := req.Credentials
		if w.parts != nil {
			w.parts.Join(all)
			all, w.parts = w.parts, nil
		}
		if all.More {
			w.parts = all
		} else {
			w.env, w.servers, w.unrenewed = all.Env, all.Servers, all.Unrenewed
		}
	case proto.OpRelocate:
		return w.relocate(req)
	case proto.OpFork:
		return w.fork(req.Dir)
	case proto.OpSuspend:
		return w.suspend()
	case proto.OpJobs:
		return proto.WorkerReply{Jobs: w.listJobs()}
	case proto.OpJob, proto.OpWaitJob, proto.OpCancelJob:
		return w.oneJob(req)
	}
	return proto.WorkerReply{}
}

func (w *worker) relocate(req proto.WorkerRequest) proto.WorkerReply {
	from, to := safesocket.Resolve(w.home.InstanceSocket(w.spec.ID)), safesocket.Resolve(w.home.InstanceSocket(req.ID))
	if err := errors.Join(w.lock.Rename(w.home.InstanceLock(req.ID)), os.Rename(from, to)); err != nil {
		return refusal("internal", err.Error())
	}
	w.dir, w.spec.ID, w.spec.Name = paths.VM(req.Dir), req.ID, req.Name
	w.status.ID, w.status.Name = req.ID, req.Name
	return proto.WorkerReply{}
}

// stream serves what takes a connection over.
func (w *worker) stream(conn net.Conn, req proto.WorkerRequest) bool {
	serve := map[proto.WorkerOp]func(net.Conn, proto.WorkerRequest){
		proto.OpWatch: w.watch, proto.OpExec: w.exec, proto.OpFile: w.file, proto.OpForward: w.forward, proto.OpTerminal: w.terminal, proto.OpMCP: w.mcp,
	}[req.Op]
	if serve == nil {
		return false
	}
	w.mu.Lock()
	state := w.status.State
	w.mu.Unlock()
	if state != lifecycle.Running && req.Op != proto.OpWatch {
		_ = proto.WriteFrame(conn, refusal("conflict", "not running"))
		return true
	}
	if proto.WriteFrame(conn, proto.WorkerReply{}) == nil {
		serve(conn, req)
	}
	return true
}

func (w *worker) watch(conn net.Conn, _ proto.WorkerRequest) {
	gone := make(chan struct{})
	go func() {
		var b [1]byte
		_, _ = conn.Read(b[:])
		close(gone)
	}()
	for {
		w.mu.Lock()
		st, changed := w.status, w.changed
		w.mu.Unlock()
		if proto.WriteFrame(conn, st) != nil {
			return
		}
		select {
		case <-changed:
		case <-gone:
			return
		}
	}
}

// die is a worker's sudden death.
func die() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) }

func encode(v any) []byte {
	var b bytes.Buffer
	_ = json.NewEncoder(&b).Encode(v)
	return bytes.TrimSpace(b.Bytes())
}
