package machine

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"time"

	"capsem/core/checkpoint"
	"capsem/core/fault"
	"capsem/core/hypervisor"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

// replyTime is what the answer to a guest that suspends itself may take to reach it.
const replyTime = 200 * time.Millisecond

// suspend saves the VM's memory beside its disk and ends it. When that fails the VM goes on.
//
// With an idle time it does so only if nobody has used the VM for that long.
func (w *Worker) suspend(ctx context.Context, idle time.Duration) error {
	w.saving.Lock()
	defer w.saving.Unlock()
	if !w.activity.close(idle) {
		return fault.New(fault.Conflict, "VM %s is in use", w.idNow())
	}
	vm, err := w.beginSuspend()
	if err != nil {
		w.activity.open()
		return err
	}
	w.board.update(func(st *proto.WorkerStatus) { st.Idle, st.Suspending = idle > 0, true })
	w.log.Info("suspending", "idle", idle)
	w.board.step("suspending")
	err = w.save(ctx, vm)
	if err != nil {
		w.mu.Lock()
		w.suspending = false
		w.mu.Unlock()
		w.board.update(func(st *proto.WorkerStatus) { st.Idle, st.Suspending, st.Step = false, false, "" })
		w.activity.open()
		w.log.Warn("the VM cannot be suspended; it goes on", "error", err)
		return errors.Join(err, vm.Resume(context.WithoutCancel(ctx)))
	}
	_, err = w.kill(context.WithoutCancel(ctx), vm)
	return err
}

// beginSuspend takes the turn to suspend the VM.
func (w *Worker) beginSuspend() (hypervisor.Machine, error) {
	if err := w.maySuspend(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.vm == nil || w.suspending {
		return nil, fault.New(fault.Conflict, "VM %s is on its way down", w.spec.ID)
	}
	w.suspending = true
	return w.vm, nil
}

// maySuspend says what is in the way of suspending the VM.
func (w *Worker) maySuspend() error {
	st, _, _ := w.board.get()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.spec.Name == "":
		return fault.New(fault.Conflict, "VM %s is unnamed: it is gone once it stops", w.spec.ID).WithHint("name it first: capsem persist %s NAME", w.spec.ID)
	case w.suspending:
		return fault.New(fault.Conflict, "VM %s is being suspended", w.spec.ID)
	case w.stands != "":
		return fault.New(fault.NoSpace, "VM %s stands still: %s", w.spec.ID, w.stands)
	case w.vm == nil || st.State != lifecycle.Running || w.wanted():
		return fault.New(fault.Conflict, "VM %s is %s, not Running", w.spec.ID, st.State)
	}
	if _, ok := w.vm.(hypervisor.Saver); !ok {
		return fault.New(fault.Unavailable, "this hypervisor cannot save a VM").WithHint("stop it instead")
	}
	return nil
}

func (w *Worker) save(ctx context.Context, vm hypervisor.Machine) error {
	saver, ok := vm.(hypervisor.Saver)
	if !ok {
		return errors.New("this hypervisor saves no machines")
	}
	err := vm.Pause(ctx)
	if err == nil {
		err = checkpoint.Make(w.dirNow().Dir(), w.want, func(to *os.File) ([]byte, error) {
			if err := saver.Save(ctx, to); err != nil {
				return nil, err //nolint:wrapcheck // says what it did
			}
			return w.saveShares(ctx)
		})
	}
	return full(err, "no space left to suspend VM %s", w.idNow())
}

// full says that an error is a full disk, if it is one.
func full(err error, format string, args ...any) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || (err != nil && strings.Contains(err.Error(), "No space left")) {
		return fault.Wrap(err, fault.NoSpace, format, args...).WithHint("free some space on that disk; the VM goes on")
	}
	return err
}

// suspended reports whether the machine ended because its memory is saved.
func (w *Worker) suspended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.suspending
}

// suspendSelf suspends the VM for a process in it, once that has its answer.
func (w *Worker) suspendSelf(ctx context.Context) {
	timer := time.NewTimer(replyTime)
	defer timer.Stop()
	<-timer.C
	err := w.suspend(ctx, 0)
	w.mu.Lock()
	w.sleepy = false
	w.mu.Unlock()
	if err != nil {
		w.log.Warn("the guest could not suspend itself", "error", err)
	}
}

// saved opens the checkpoint that the VM goes on from; nil when there is none.
func (w *Worker) saved() (*checkpoint.Saved, error) {
	dir := w.dirNow().Dir()
	if w.spec.Cold {
		return nil, checkpoint.Discard(dir, true) //nolint:wrapcheck // says what it did
	}
	if !checkpoint.Exists(dir) {
		return nil, checkpoint.Discard(dir, false) //nolint:wrapcheck // says what it did
	}
	s, err := checkpoint.Open(dir, w.want)
	switch {
	case !errors.Is(err, checkpoint.ErrMisfit):
	case w.spec.ForkedMemory:
		return nil, w.forked(err)
	default:
		return nil, w.misfit(err)
	}
	return s, err //nolint:wrapcheck // says what it did
}

// misfit says that the VM cannot go on, and what can be done.
func (w *Worker) misfit(err error) error {
	return fault.Wrap(err, fault.Conflict, "VM %s cannot go on from where it was suspended: %s", w.idNow(), err).
		WithHint("capsem resume --cold %s boots it from its disk; what was only in its memory is then lost", w.idNow())
}

// setOff starts the machine. A saved state is taken away before it runs: the disk is ahead of it from then on.
func (w *Worker) setOff(ctx context.Context, vm hypervisor.Machine) error {
	if !w.resuming {
		return vm.Start(ctx) //nolint:wrapcheck // says what it did
	}
	back, err := checkpoint.Take(w.dirNow().Dir())
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	if err := vm.Start(ctx); err != nil {
		if ctx.Err() != nil || errors.Is(err, hypervisor.ErrRan) {
			return err //nolint:wrapcheck // it may have run: its disk is ahead of the state
		}
		return errors.Join(err, back())
	}
	if err := checkpoint.Discard(w.dirNow().Dir(), false); err != nil {
		w.log.Warn("cannot remove a state that is used up", "error", err)
	}
	return nil
}

// resumeStages is the timing of a VM that went on.
func resumeStages(started time.Time) []proto.BootStage {
	return []proto.BootStage{{Name: "resume", DurationUS: time.Since(started).Microseconds()}}
}
