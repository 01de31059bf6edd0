package machine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"capsem/core/api"
	"capsem/core/config"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
)

// maxGraceMS bounds how long a guest's processes may take to end, in milliseconds.
const maxGraceMS = 60_000

// waitFinal waits until the VM has ended.
func (w *Worker) waitFinal(ctx context.Context) error {
	for {
		_, changed, final := w.board.get()
		if final {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the end: %w", context.Cause(ctx))
		}
	}
}

// pause stops or starts the virtual CPUs.
func (w *Worker) pause(ctx context.Context, pause bool) error {
	w.saving.Lock()
	defer w.saving.Unlock()
	w.mu.Lock()
	vm, agent := w.vm, w.agent
	w.mu.Unlock()
	if vm == nil {
		return w.notRunning()
	}
	if pause {
		return vm.Pause(ctx) //nolint:wrapcheck // says what it did
	}
	if err := vm.Resume(ctx); err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	if agent != nil {
		return agent.Ping(ctx) //nolint:wrapcheck // the guest gets the time it has missed
	}
	return nil
}

// notRunning says why the guest cannot be asked for anything now.
func (w *Worker) notRunning() error {
	st, _, _ := w.board.get()
	switch st.State {
	case lifecycle.Booting:
		return fault.New(fault.Unavailable, "VM %s is still starting", st.ID).WithHint("try again in a moment")
	case lifecycle.Running:
		return fault.New(fault.Unavailable, "the link to VM %s is being made anew", st.ID).WithHint("try again in a moment")
	}
	return fault.New(fault.Unavailable, "VM %s is %s", st.ID, st.State).WithHint("see capsem list")
}

// agentTime is how long a request waits for a link that is being made anew, which mostly takes much less.
const agentTime = 10 * time.Second

// guest returns the agent, or why there is none. It waits a while for one that is to come back.
func (w *Worker) guest(ctx context.Context) (guestAgent, error) {
	ctx, cancel := context.WithTimeout(ctx, agentTime)
	defer cancel()
	for {
		st, changed, _ := w.board.get()
		w.mu.Lock()
		a, stands := w.agent, w.stands
		w.mu.Unlock()
		switch {
		case stands != "":
			return nil, w.standing(stands)
		case a != nil:
			return a, nil
		case st.State != lifecycle.Running:
			return nil, w.notRunning()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, w.notRunning()
		}
	}
}

func (w *Worker) standing(why string) error {
	return fault.New(fault.NoSpace, "VM %s stands still: %s", w.idNow(), why).WithHint("make room; it goes on by itself, and has lost nothing")
}

// stall takes from the hypervisor why the machine stands still; "" when it goes on.
func (w *Worker) stall(why string) {
	w.mu.Lock()
	before := w.stands
	w.stands = why
	w.mu.Unlock()
	switch why {
	case before:
	case "":
		w.log.Info("the VM goes on")
		w.board.step("")
	default:
		w.log.Warn("the VM stands still", "why", why)
		w.board.step("standing still: " + why)
	}
}

func (w *Worker) standsNow() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stands
}

// relocate takes the VM's new directory and name. The service has renamed the directory; what is open stays open.
func (s *server) relocate(ctx context.Context, req *proto.WorkerRequest) error {
	w := s.w
	if err := api.CheckName(req.ID); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	spec, err := readSpec(paths.VM(req.Dir).Spec())
	if err == nil && spec.ID != req.ID {
		err = fault.New(fault.Invalid, "%s describes VM %s, not %s", req.Dir, spec.ID, req.ID)
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.spec.ID
	if err := w.lock.Rename(w.cfg.Home.InstanceLock(req.ID)); err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	if err := s.move(ctx, w.cfg.Home.InstanceSocket(req.ID)); err != nil {
		return errors.Join(err, w.lock.Rename(w.cfg.Home.InstanceLock(old)))
	}
	w.dir, w.spec.ID, w.spec.Name, w.spec.Env = paths.VM(req.Dir), req.ID, req.Name, spec.Env
	w.board.update(func(st *proto.WorkerStatus) { st.ID, st.Name = req.ID, req.Name })
	w.log.Info("renamed", "to", req.ID)
	w.note("named", req.ID, 0)
	w.network.rules.Move(config.PolicyFiles(w.cfg.Home, w.dir))
	return nil
}
