// Package machine is one VM's life, as its worker lives it: it starts the hypervisor, holds the link to the guest's agent,
// keeps the jobs, and answers on the worker's socket (proto.WorkerRequest). The guest is hostile: what comes from it is
// checked frame by frame before it goes on.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"capsem/core/atomicfile"
	"capsem/core/guard"
	"capsem/core/hypervisor"
	"capsem/core/ledger"
	"capsem/core/lifecycle"
	"capsem/core/machine/jobs"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/snapshot"
	"capsem/core/template"
)

// Boot is what a VM boots from: open files, verified, which Close gives back.
type Boot struct {
	Kernel, Initrd, RootFS *os.File
	// RootFSType is squashfs or erofs; Arch a GOARCH word.
	RootFSType, Arch string
	Close            func() error
}

// Config is what a worker needs.
type Config struct {
	// Home is the installation, Dir the VM's own directory.
	Home paths.Home
	Dir  paths.VM
	// Driver runs the machine. DiskFormat is what it can use for the system disk.
	Driver     hypervisor.Driver
	DiskFormat hypervisor.DiskFormat
	// Resolve turns the accelerator that the spec asks for into one that works.
	Resolve func(ctx context.Context, want hypervisor.Accelerator) (hypervisor.Accelerator, string, error)
	// Assets opens what the spec's asset version names.
	Assets func(ctx context.Context, version string) (*Boot, error)
	// RAM, when set, is the memory of a template (template.Template.Memory) that a new VM may go on from. Host says what a saved
	// state depends on besides, with an accelerator.
	RAM  *os.File
	Host func(ctx context.Context, accelerator hypervisor.Accelerator) (string, error)
	// Share has the guest mount its workspace, and the directories in the spec, over the link.
	Share bool
	// MCP is the binary that is all personalities, as which MCP servers are started; empty has none.
	MCP string
	// Log takes what happens.
	Log *slog.Logger
	// grace and slack are shutdownGrace and shutdownSlack but in tests.
	grace, slack time.Duration
}

// Worker is one VM.
type Worker struct {
	cfg   Config
	log   *slog.Logger
	spec  proto.VMSpec
	nonce string
	board *board
	jobs  jobs.Store
	// What follows is only for the goroutine that boots, and want for others once the machine runs: no template is to be used; the
	// machine goes on from a checkpoint; what its state depends on.
	cold, resuming bool
	want           template.Want

	mu     sync.Mutex
	dir    paths.VM
	lock   *guard.Lock
	agent  guestAgent         // nil while there is none
	vm     hypervisor.Machine // nil while there is none
	asking sync.WaitGroup     // the request to power off
	ending *ending            // set once somebody wants the VM to end
	reboot bool               // the guest asked for it
	sleepy bool               // the guest asked to be suspended
	stands string             // why the machine stands still, if it does
	// saving is held while the machine is saved, and must stand still.
	saving sync.Mutex
	shares shares // nil while there are none
	making bool   // it is for a template
	// activity is who uses the VM.
	activity activity
	// suspending says that the memory is being saved, or has been.
	suspending bool

	console *os.File
	ledger  *ledger.Writer // nil while there is none
	// snapshots are those of the workspace; nil, and noSnapshots why, when they cannot be opened.
	snapshots   *snapshot.Store
	noSnapshots error
	// credentials are what the guest has placeholders for.
	credentials *credentials
	// network is nil in a template that is being made.
	network *network
	// mcp is nil where there are no MCP servers.
	mcp      *mcpServers
	schedule *snapshot.Scheduler // nil until the guest has answered
	work     sync.WaitGroup      // detached jobs and lifecycle requests
}

// ending is a wish for the VM to end.
type ending struct {
	// asked is closed when the VM is to end, now when it is to end at once.
	asked, now chan struct{}
	once       sync.Once
	grace      time.Duration
}

// New reads the VM's spec.
func New(cfg Config) (*Worker, error) {
	spec, err := readSpec(cfg.Dir.Spec())
	if err != nil {
		return nil, err
	}
	if cfg.slack == 0 {
		cfg.grace, cfg.slack = shutdownGrace, shutdownSlack
	}
	now := time.Now().UnixNano()
	w := &Worker{
		cfg: cfg, log: cfg.Log.With("vm", spec.ID), spec: spec, nonce: newNonce(), dir: cfg.Dir,
		credentials: newCredentials(),
		ending:      &ending{asked: make(chan struct{}), now: make(chan struct{})},
		board: newBoard(proto.WorkerStatus{
			ID: spec.ID, Name: spec.Name, State: lifecycle.Booting, PID: os.Getpid(), StartedNS: now, Step: "starting",
		}),
	}
	w.credentials.tell = func(refused []proto.RefusedToken) {
		w.board.update(func(st *proto.WorkerStatus) { st.Refused = refused })
	}
	return w, nil
}

// LogLevel is what the spec asks for: debug, info, warn, error or empty.
func (w *Worker) LogLevel() string { return w.spec.LogLevel }

// Run lives the VM's life: it returns when the VM has ended and everything of it is released. The end of ctx powers the guest
// off in order. A VM that ends badly is no error of Run: status.json and the last status say so.
func (w *Worker) Run(ctx context.Context) (err error) {
	w.lock, err = guard.Acquire(w.cfg.Home.InstanceLock(w.spec.ID))
	if err != nil {
		return fmt.Errorf("another worker runs this VM: %w", err)
	}
	defer func() { err = errors.Join(err, w.lock.Release()) }()
	if _, err := readSpec(w.dir.Spec()); err != nil { // the VM may have been destroyed before we had the lock
		return err
	}
	if err := w.openRecord(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.closeRecord(ctx)) }()
	w.console, err = os.OpenFile(w.dir.SerialLog(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND|oNoFollow, 0o600)
	if err != nil {
		return fmt.Errorf("open console log: %w", err)
	}
	defer w.console.Close()
	defer func() { err = errors.Join(err, w.sharesNow().close()) }()
	closeSnapshots := w.openSnapshots(ctx)
	defer closeSnapshots()
	closeNetwork, err := w.openNetwork(ctx)
	if err != nil {
		return err
	}
	defer closeNetwork()
	closeMCP := w.openMCP(ctx)
	defer closeMCP()
	server, err := w.listen(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	stop := context.AfterFunc(ctx, func() { w.end(w.cfg.grace, false) })
	defer stop()
	// What must be done is done also when ctx has ended: the guest is to power off in order.
	state, why := w.live(context.WithoutCancel(ctx))
	w.finish(state, why)
	w.work.Wait()
	return nil
}

// finish publishes the last status and leaves it in the VM's directory.
func (w *Worker) finish(state lifecycle.State, why string) {
	w.log.Info("ended", "state", state, "why", why)
	w.note(strings.ToLower(string(state)), why, 0)
	w.mu.Lock()
	path := w.dir.Status()
	w.mu.Unlock()
	st, _, _ := w.board.get()
	st.State, st.LastError, st.HypervisorPID, st.Step = state, why, 0, ""
	text, err := json.Marshal(st)
	if err == nil {
		err = atomicfile.Write(path, text, 0o600)
	}
	if err != nil {
		w.log.Error("cannot leave the last status", "error", err)
	}
	w.board.finish(func(now *proto.WorkerStatus) { *now = st })
}

// end asks the VM to end: in order within grace, or at once. A later call can only make it quicker.
func (w *Worker) end(grace time.Duration, now bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending.once.Do(func() {
		w.ending.grace = grace
		close(w.ending.asked)
	})
	if now {
		select {
		case <-w.ending.now:
		default:
			close(w.ending.now)
		}
	}
}
