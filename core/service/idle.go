package service

import (
	"context"
	"time"

	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

const (
	// idleLook is how often it is looked whether the settings now have idle VMs suspended, and at most between two looks at a VM.
	idleLook = 30 * time.Second
	// idleLeast is the least time between two looks.
	idleLeast = 50 * time.Millisecond
	// idleAsk is how long a worker may take to say how long its VM has been idle.
	idleAsk = 5 * time.Second
)

// suspendIdle suspends named VMs that nobody has used for as long as the settings say, until the service ends.
func (s *Service) suspendIdle() {
	timer := time.NewTimer(idleLook)
	defer timer.Stop()
	for {
		timer.Reset(s.suspendIdleOnce())
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// suspendIdleOnce looks at each VM once, and says when to look again.
func (s *Service) suspendIdleOnce() time.Duration {
	set, err := s.opts.Settings()
	if err != nil || set.VM.IdleSuspend == 0 {
		return idleLook
	}
	limit, next := set.VM.IdleSuspend, min(set.VM.IdleSuspend, idleLook)
	for _, v := range s.all() {
		w := v.view()
		if w.spec.Name == "" || w.life == nil || w.state != lifecycle.Running {
			continue
		}
		idle, err := s.idleTime(w)
		switch {
		case err != nil:
			s.log.Debug("a worker does not say how long its VM is idle", "vm", w.spec.ID, "error", fault.Line(err))
		case idle < limit:
			next = min(next, limit-idle)
		default:
			s.suspendIdleVM(v, limit)
		}
	}
	return max(next, idleLeast)
}

func (s *Service) idleTime(w view) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(s.ctx, idleAsk)
	defer cancel()
	conn, err := workerclient.Dial(ctx, s.opts.Home.InstanceSocket(w.life.instance))
	if err != nil {
		return 0, err //nolint:wrapcheck // a fault
	}
	defer conn.Close()
	reply, err := conn.Call(ctx, proto.WorkerRequest{Op: proto.OpStatus})
	if err != nil || reply.Status == nil {
		return 0, err //nolint:wrapcheck // a fault
	}
	return time.Duration(reply.Status.IdleNS), nil
}

// suspendIdleVM suspends one VM unless it is used after all.
func (s *Service) suspendIdleVM(v *vm, limit time.Duration) {
	v.update(func() { v.idling = true })
	defer v.update(func() { v.idling = false })
	if _, err := s.suspend(s.ctx, v, limit); err != nil {
		s.log.Info("an idle VM was not suspended", "vm", v.id(), "error", fault.Line(err))
		return
	}
	s.log.Info("suspended an idle VM", "vm", v.id())
}

// sleeps reports whether a VM is suspended, or being suspended, because nobody used it: then its next user wakes it.
func (w view) sleeps() bool { return w.idling || w.state == lifecycle.Suspended && w.idle }

// wake has a VM go on that sleeps.
func (s *Service) wake(ctx context.Context, v *vm) error {
	if !v.view().sleeps() {
		return nil
	}
	s.log.Info("waking", "vm", v.id())
	return s.startTurn(ctx, v, false, false) // which waits until it is asleep
}
