package service

import (
	"context"

	"capsem/core/fault"
	"capsem/core/guard"
)

// adoptStray takes over the worker of a VM that has none as far as we know: a service that was killed right after it had started
// one left it, too late for takeOverWorkers to see. The caller has the VM's turn.
func (s *Service) adoptStray(ctx context.Context, v *vm) error {
	if v.view().life != nil {
		return nil
	}
	pid, held, err := guard.Holder(s.opts.Home.InstanceLock(v.id()))
	if err != nil || !held {
		return nil //nolint:nilerr // what needs the lock will say so
	}
	if err := s.adoptWorker(ctx, v.id(), pid); err != nil {
		return fault.Wrap(err, fault.Unavailable, "process %d is a worker of VM %s and cannot be taken over", pid, v.id()).
			WithHint("capsem service stop, then start it again: it ends workers that do not answer")
	}
	return nil
}

// reapStray ends such a worker.
func (s *Service) reapStray(ctx context.Context, v *vm) {
	if pid, held, err := guard.Holder(s.opts.Home.InstanceLock(v.id())); err == nil && held {
		s.reap(ctx, v.id(), pid)
	}
	s.clearInstance(v.id())
}
