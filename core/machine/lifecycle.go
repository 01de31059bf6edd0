package machine

import (
	"context"
	"time"

	"capsem/core/fault"
	"capsem/core/hypervisor"
	"capsem/core/proto"
)

// lifecycle answers what a process in the guest asks for.
func (w *Worker) lifecycle(ctx context.Context, req proto.LifecycleRequest) proto.LifecycleReply {
	switch req.Action {
	case proto.ActionPoweroff:
		w.end(w.cfg.grace, false)
		return proto.LifecycleReply{OK: true}
	case proto.ActionReboot:
		w.mu.Lock()
		defer w.mu.Unlock()
		a, vm := w.agent, w.vm
		if a == nil || vm == nil {
			return proto.LifecycleReply{Message: "the VM is on its way down"}
		}
		if !w.reboot {
			w.reboot = true
			w.work.Go(func() { w.rebootGuest(ctx, a, vm) })
		}
		return proto.LifecycleReply{OK: true}
	case proto.ActionSuspend:
		if err := w.maySuspend(); err != nil {
			return proto.LifecycleReply{Message: fault.Line(err)}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.sleepy { // however often it asks
			w.sleepy = true
			w.work.Go(func() { w.suspendSelf(ctx) })
		}
		return proto.LifecycleReply{OK: true}
	}
	return proto.LifecycleReply{Message: "unknown action"}
}

// rebootGuest has the guest reset itself, which the hypervisor reports as the end of this machine. One that does not do it is
// killed; live then goes on as if it had.
func (w *Worker) rebootGuest(ctx context.Context, a guestAgent, vm hypervisor.Machine) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.grace+w.cfg.slack)
	defer cancel()
	err := a.Shutdown(ctx, uint32(w.cfg.grace/time.Millisecond), true) //nolint:gosec // a constant
	if err == nil {
		_, err = vm.Wait(ctx)
	}
	if err == nil {
		return
	}
	w.log.Warn("the guest did not reboot in time", "error", err)
	if _, err := w.kill(context.WithoutCancel(ctx), vm); err != nil {
		w.log.Error("the hypervisor cannot be killed", "error", err)
	}
}
