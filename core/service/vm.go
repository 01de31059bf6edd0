package service

import (
	"context"
	"os"
	"sync"
	"time"

	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
)

// vm is one VM the service knows.
type vm struct {
	// turn holds one token: whoever takes it may start, stop, rename or delete the VM.
	turn chan struct{}

	// settling is held while the VM gets another name and directory, and while the end of its worker is dealt with.
	settling sync.Mutex

	// mu guards what follows.
	mu    sync.Mutex
	spec  proto.VMSpec
	dir   paths.VM
	state lifecycle.State
	// status is what the worker last said; zero when it never did.
	status proto.WorkerStatus
	// lastError says why the VM is Defunct, or why a Suspended one did not go on.
	lastError string
	// life is the worker process, nil when none runs.
	life *life
	// starting says that it counts among those that run although its worker has not been started yet.
	starting bool
	// idle says that a Suspended VM was suspended because nobody used it, idling that this is being done.
	idle, idling bool
	// gone says that the VM has been destroyed and is no longer in the table.
	gone bool
	// changed is closed and replaced at each change.
	changed chan struct{}
}

// life is one worker process, from its start until everything about its end has been dealt with.
type life struct {
	// pid is the worker's; process is a handle on it, which no later process of that id can be taken for.
	pid     int
	process *os.Process
	// instance names its socket and its lock; it is the VM's id but right after a persist that was cut short.
	instance string
	// reaped is closed when the process, a child of ours, has been waited for; nil for one we took over.
	reaped <-chan struct{}
	// done is closed when its end has been dealt with.
	done chan struct{}
	// wanted says that the end was asked for; destroy that nothing of the VM is to be kept. The vm's mu guards both.
	wanted, destroy bool
}

func newVM(spec proto.VMSpec, dir paths.VM, state lifecycle.State) *vm {
	v := &vm{turn: make(chan struct{}, 1), spec: spec, dir: dir, state: state, changed: make(chan struct{})}
	v.turn <- struct{}{}
	return v
}

// take waits for the turn to act on the VM. It fails when ctx ends, and when the VM has been destroyed meanwhile.
func (v *vm) take(ctx context.Context) error {
	select {
	case <-v.turn:
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller's own
	}
	v.mu.Lock()
	gone, id := v.gone, v.spec.ID
	v.mu.Unlock()
	if gone {
		v.give()
		return fault.New(fault.NotFound, "VM %s has just been deleted", id)
	}
	return nil
}

func (v *vm) give() { v.turn <- struct{}{} }

// update changes the VM under its lock and wakes those who wait.
func (v *vm) update(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
	close(v.changed)
	v.changed = make(chan struct{})
}

// move goes to another state where the table allows it. The caller holds mu (see update).
func (v *vm) move(to lifecycle.State) error {
	if err := lifecycle.Check(v.state, to); err != nil {
		return err //nolint:wrapcheck // says both states
	}
	v.state = to
	return nil
}

// view is a copy of what the mutex guards.
type view struct {
	spec      proto.VMSpec
	dir       paths.VM
	state     lifecycle.State
	status    proto.WorkerStatus
	lastError string
	life      *life
	starting  bool
	idle      bool
	idling    bool
	gone      bool
	changed   <-chan struct{}
}

func (v *vm) view() view {
	v.mu.Lock()
	defer v.mu.Unlock()
	return view{v.spec, v.dir, v.state, v.status, v.lastError, v.life, v.starting, v.idle, v.idling, v.gone, v.changed}
}

// await returns the first view for which ok holds.
func (v *vm) await(ctx context.Context, ok func(view) bool) (view, error) {
	for {
		now := v.view()
		if ok(now) {
			return now, nil
		}
		select {
		case <-now.changed:
		case <-ctx.Done():
			return now, ctx.Err() //nolint:wrapcheck // the caller's own
		}
	}
}

// id is the VM's id at this moment: persist changes it.
func (v *vm) id() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.spec.ID
}

// readySlack is what is given to a worker beyond the time it gives its guest.
const readySlack = 30 * time.Second

// running waits until the guest answers.
func (v *vm) running(ctx context.Context) (view, error) {
	spec := v.view().spec
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(spec.ReadyTimeoutMS)*time.Millisecond+readySlack, errNotReady)
	defer cancel()
	now, err := v.await(ctx, func(w view) bool { return w.gone || w.state != lifecycle.Booting && w.state != lifecycle.Created })
	switch {
	case err != nil && context.Cause(ctx) == errNotReady: //nolint:errorlint // the very value given above
		return now, fault.New(fault.Timeout, "VM %s has not become ready", now.spec.ID).WithHint("see capsem logs %s", now.spec.ID)
	case err != nil:
		return now, err
	case now.state == lifecycle.Running:
		return now, nil
	}
	return now, notRunning(now)
}

// notRunning says why nothing can be done in a VM in this state, and what to do.
func notRunning(w view) error {
	id := w.spec.ID
	switch {
	case w.gone && w.lastError == "":
		return fault.New(fault.Conflict, "VM %s has ended", id).WithHint("an unnamed VM is destroyed at its end; capsem create starts another")
	case w.gone:
		return fault.New(fault.Unavailable, "VM %s has died: %s", id, w.lastError).WithHint("see capsem logs %s", id)
	case w.state == lifecycle.Defunct:
		return fault.New(fault.Conflict, "VM %s is Defunct: %s", id, w.lastError).WithHint("see capsem logs %s; capsem resume %s starts it again", id, id)
	case w.state == lifecycle.Stopping:
		return fault.New(fault.Conflict, "VM %s is Stopping", id).WithHint("wait, then capsem resume %s", id)
	}
	return fault.New(fault.Conflict, "VM %s is %s, not Running", id, w.state).WithHint("capsem resume %s starts it", id)
}
