package machine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"capsem/core/fault"
	"capsem/core/hypervisor"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

const (
	// shutdownGrace is how long the guest's processes get when nobody says otherwise.
	shutdownGrace = 5 * time.Second
	// shutdownSlack is what the guest may take beyond that to unmount and power off.
	shutdownSlack = 5 * time.Second
	// exitTime is how long after the end of the link the end of the machine may show.
	exitTime = time.Second
	// forever is longer than any VM lives.
	forever = 1000 * 24 * time.Hour
	// killTime bounds waiting for a hypervisor that was killed.
	killTime = 30 * time.Second
)

// errEnding is why a boot or a connection is given up when the VM is to end.
var errEnding = errors.New("the VM is to end")

// live boots the VM, again after each reboot, until it ends. It returns the last state and, for Defunct, why.
func (w *Worker) live(ctx context.Context) (lifecycle.State, string) {
	for retried := false; ; {
		exit, err := w.once(ctx)
		switch {
		case errors.Is(err, errEnding):
			return lifecycle.Stopped, ""
		case err == nil && exit.Reason == hypervisor.Killed && w.suspended():
			return lifecycle.Suspended, ""
		case w.startedWarm() && !w.wanted() && (err != nil || exit.Reason == hypervisor.GuestPanic || exit.Reason == hypervisor.Crashed):
			w.goCold(errors.Join(err, fmt.Errorf("its machine ended: %s %s", exit.Reason, exit.Detail)))
			continue
		case err != nil:
			return lifecycle.Defunct, w.withConsole(fault.Line(err))
		}
		switch exit.Reason {
		case hypervisor.GuestPoweroff, hypervisor.Killed, hypervisor.GuestReboot:
			if w.wanted() || !w.rebooting(exit.Reason) {
				return lifecycle.Stopped, ""
			}
			w.rebooted()
			retried = false
		case hypervisor.GuestPanic:
			if !retried && !w.wasReady() && !w.wanted() {
				// One boot in about fifty ends so under TCG with two CPUs: Linux patches its own code, and an emulated CPU trips over that.
				w.log.Warn("the guest's kernel panicked while it booted; trying once more")
				retried = true
				continue
			}
			return lifecycle.Defunct, w.withConsole("the guest's kernel panicked")
		default:
			return lifecycle.Defunct, w.withConsole("the hypervisor died: " + exit.Detail)
		}
	}
}

// startedWarm reports whether the machine that has ended began from a template and never answered.
func (w *Worker) startedWarm() bool {
	st, _, _ := w.board.get()
	return st.Warm && st.ReadyNS == 0
}

// wanted reports whether somebody has asked the VM to end.
func (w *Worker) wanted() bool {
	select {
	case <-w.ending.asked:
		return true
	default:
		return false
	}
}

// rebooting reports whether a machine is to follow the one that ended: the guest reset itself, or asked for it and had to be
// helped.
func (w *Worker) rebooting(reason hypervisor.ExitReason) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return reason == hypervisor.GuestReboot || (reason == hypervisor.Killed && w.reboot)
}

func (w *Worker) rebooted() {
	w.log.Info("the guest reboots")
	w.note("rebooting", "", 0)
	w.mu.Lock()
	w.reboot = false
	w.mu.Unlock()
	w.board.update(func(st *proto.WorkerStatus) {
		st.State, st.Step, st.ReadyNS, st.HypervisorPID, st.Warm = lifecycle.Booting, "rebooting", 0, 0, false
		st.Reboots++
	})
}

// once runs the machine one time: create, start, talk to the guest until it ends.
func (w *Worker) once(ctx context.Context) (hypervisor.Exit, error) {
	limit := time.Duration(w.spec.ReadyTimeoutMS) * time.Millisecond
	if w.mayBeWarm() {
		limit = min(limit, warmTime)
	}
	boot, cancel := context.WithTimeoutCause(ctx, limit, fault.New(fault.Timeout, "the guest was not ready within %s", limit).
		WithHint("give it more with vm.ready_timeout in user.toml"))
	defer cancel()
	boot, abandon := context.WithCancelCause(boot)
	defer abandon(nil)
	go func() {
		select {
		case <-w.ending.asked:
			abandon(errEnding)
		case <-boot.Done():
		}
	}()
	vm, err := w.create(boot)
	if err != nil {
		return hypervisor.Exit{}, cause(boot, err)
	}
	w.mu.Lock()
	w.vm = vm
	w.mu.Unlock()
	defer w.release(ctx, vm)
	served := make(chan error, 1)
	down, stopServing := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() { served <- w.serveGuest(boot, down, vm) })
	exit, err := w.await(ctx, vm, served)
	abandon(hypervisor.ErrGone)
	stopServing()
	serving.Wait()
	if why := w.standsNow(); why != "" && fault.Is(err, fault.Timeout) {
		err = w.standing(why)
	}
	w.stall("")
	if err == nil && !w.wasReady() && !w.wanted() && exit.Reason != hypervisor.GuestPanic {
		err = fault.New(fault.Unavailable, "the guest ended before it was ready (%s): %s", exit.Reason, exit.Detail)
	}
	return exit, err
}

// cause prefers why ctx ended to the error that this brought about.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (w *Worker) wasReady() bool {
	st, _, _ := w.board.get()
	return st.ReadyNS != 0
}

// await waits until the machine is down, by itself, because somebody wants it, or because the guest cannot be talked to.
func (w *Worker) await(ctx context.Context, vm hypervisor.Machine, served <-chan error) (hypervisor.Exit, error) {
	exited := make(chan hypervisor.Exit, 1)
	go func() {
		if exit, err := vm.Wait(ctx); err == nil {
			exited <- exit
		}
	}()
	asking, cancel := context.WithCancel(ctx)
	defer w.asking.Wait()
	defer cancel()
	asked := w.ending.asked
	force := time.NewTimer(forever)
	defer force.Stop()
	for {
		select {
		case exit := <-exited:
			return exit, nil
		case err := <-served:
			served = nil
			if w.wanted() {
				continue // the machine is on its way down
			}
			return w.brokenLink(exited, err)
		case <-asked:
			asked = nil
			force.Reset(w.powerOff(asking, vm))
		case <-w.ending.now:
			w.board.move(lifecycle.Stopping)
			return w.kill(ctx, vm)
		case <-force.C:
			w.log.Warn("the guest did not power off in time")
			return w.kill(ctx, vm)
		}
	}
}

// brokenLink looks why the guest cannot be talked to: the end of the machine, which shows a moment later, says more.
func (w *Worker) brokenLink(exited <-chan hypervisor.Exit, err error) (hypervisor.Exit, error) {
	if fault.Is(err, fault.Timeout) {
		return hypervisor.Exit{}, err
	}
	timer := time.NewTimer(exitTime)
	defer timer.Stop()
	select {
	case exit := <-exited:
		return exit, nil
	case <-timer.C:
		return hypervisor.Exit{}, err
	}
}

// release makes sure that nothing of a machine stays.
func (w *Worker) release(ctx context.Context, vm hypervisor.Machine) {
	if _, err := w.kill(ctx, vm); err != nil {
		w.log.Error("the hypervisor cannot be killed", "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.vm = nil
}

// kill ends the machine unless it has ended.
func (w *Worker) kill(ctx context.Context, vm hypervisor.Machine) (hypervisor.Exit, error) {
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	if err := vm.Kill(ctx); err != nil && !errors.Is(err, hypervisor.ErrGone) {
		return hypervisor.Exit{}, fmt.Errorf("kill hypervisor: %w", err)
	}
	return vm.Wait(ctx) //nolint:wrapcheck // says what it did
}
