package machine

import (
	"context"
	"time"

	"capsem/core/hypervisor"
	"capsem/core/lifecycle"
)

// suspendTime bounds saving the memory of a VM.
const suspendTime = 10 * time.Minute

const (
	// askTime is how long one try to reach the guest with a request to power off may take, askAgain the pause before the next.
	askTime, askAgain = time.Second, 50 * time.Millisecond
)

// powerOff begins to take the guest down, until ctx ends, and returns how long that may take. A guest that never was ready gets no
// time: it has nothing that is not on disk.
func (w *Worker) powerOff(ctx context.Context, vm hypervisor.Machine) time.Duration {
	w.board.move(lifecycle.Stopping)
	if !w.wasReady() {
		return 0
	}
	w.mu.Lock()
	grace, suspending := w.ending.grace, w.suspending
	w.mu.Unlock()
	if suspending { // it ends by that, and must not run meanwhile
		return suspendTime
	}
	w.asking.Go(func() { w.askToPowerOff(ctx, vm, time.Now().Add(grace)) })
	return grace + w.cfg.slack
}

// awaitSaved lets a fork finish, for which the machine must stand still.
func (w *Worker) awaitSaved() {
	w.saving.Lock()
	defer w.saving.Unlock() //nolint:gocritic // it only waits
}

// askToPowerOff tells the agent that the guest is to be down by then, and each further one, should the link break before the
// machine is down.
func (w *Worker) askToPowerOff(ctx context.Context, vm hypervisor.Machine, by time.Time) {
	w.awaitSaved()
	if err := vm.Resume(ctx); err != nil { // it may be paused, and could not obey
		w.log.Warn("cannot let the guest go on", "error", err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		timer.Reset(askAgain)
		w.mu.Lock()
		agent := w.agent
		w.mu.Unlock()
		if agent == nil {
			continue
		}
		try, cancel := context.WithTimeout(ctx, askTime)
		err := agent.Shutdown(try, uint32(max(time.Until(by), 0).Milliseconds()), false) //nolint:gosec // bounded where it is set
		cancel()
		if err != nil {
			w.log.Warn("the guest cannot be asked to power off", "error", err)
			continue
		}
		select {
		case <-agent.Done():
		case <-ctx.Done():
			return
		}
	}
}
