package service

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/image"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

const (
	// stopGraceMS is how long a guest may take to power off when asked to, in milliseconds; the worker then ends it.
	stopGraceMS = 10_000
	stopGrace   = stopGraceMS * time.Millisecond
	// stopSlack is what the worker itself may take beyond that.
	stopSlack = 10 * time.Second
	// killGrace is how long a worker may take to end its VM at once.
	killGrace = 5 * time.Second
)

// Stop powers a VM off. A named one is kept; an unnamed one is destroyed.
func (s *Service) Stop(ctx context.Context, id string) (api.StopReply, error) {
	v, err := s.find(id)
	if err != nil {
		return api.StopReply{}, err
	}
	named := false
	err = s.end(ctx, v, func(w view) (destroy bool, err error) {
		named = w.spec.Name != ""
		return !named, nil
	})
	if err != nil {
		return api.StopReply{}, err
	}
	return api.StopReply{Success: true, Persistent: named}, nil
}

// Delete destroys a VM and all that is kept of it. A VM that has died and was kept for its logs goes too.
func (s *Service) Delete(ctx context.Context, id string) error {
	v, err := s.find(id)
	if err != nil {
		if dir := s.opts.failedDir(id); dir != "" {
			return discard(&s.opts, s.opts.failed(id), nil)
		}
		return err
	}
	return s.end(ctx, v, func(w view) (destroy bool, err error) {
		if w.spec.ID != id {
			return false, fault.New(fault.NotFound, "VM %s is now named %s", id, w.spec.ID).WithHint("capsem delete %s destroys it", w.spec.ID)
		}
		return true, nil
	})
}

// end takes a VM down. choose is asked whether to destroy it once nobody else can change it: while this waited, the VM may have
// been given a name.
func (s *Service) end(ctx context.Context, v *vm, choose func(w view) (destroy bool, err error)) error {
	if err := v.take(ctx); err != nil {
		return err
	}
	defer v.give()
	destroy, err := choose(v.view())
	if err != nil {
		return err
	}
	return s.endNow(ctx, v, destroy)
}

// endNow is end for a caller that has the VM's turn.
func (s *Service) endNow(ctx context.Context, v *vm, destroy bool) error {
	if err := s.adoptStray(ctx, v); err != nil {
		s.log.Warn("ending a worker that cannot be taken over", "vm", v.id(), "error", err)
		s.reapStray(ctx, v)
	}
	w := v.view()
	if w.life != nil {
		req, grace := proto.WorkerRequest{Op: proto.OpStop, GraceMS: stopGraceMS}, stopGrace+stopSlack
		if destroy {
			req, grace = proto.WorkerRequest{Op: proto.OpKill}, killGrace
		}
		if err := s.endLife(ctx, v, req, grace, destroy); err != nil {
			return err
		}
	}
	v.settling.Lock() // whoever deals with the worker's end may be clearing away too
	defer v.settling.Unlock()
	w = v.view()
	switch {
	case w.gone:
		return nil
	case destroy:
		return s.clearAway(v, false)
	case w.state == lifecycle.Stopped || w.state == lifecycle.Suspended:
		return nil
	}
	v.update(func() { v.state = lifecycle.Stopped }) // Defunct and Created may both go there; why it died is told until the next start
	s.noteEnd(w, lifecycle.Stopped, "")
	return nil
}

// Restart stops a named VM if it is up, and starts it again.
func (s *Service) Restart(ctx context.Context, id string) (api.ProvisionReply, error) {
	v, err := s.find(id)
	if err != nil {
		return api.ProvisionReply{}, err
	}
	if v.view().spec.Name == "" {
		return api.ProvisionReply{}, fault.New(fault.Conflict, "VM %s is unnamed: it would be gone once it stops", id).
			WithHint("name it first: capsem persist %s NAME", id)
	}
	return s.start(ctx, v, true, false)
}

// Resume starts a named VM that is down, and waits until its guest answers. One that is up is left as it is.
//
// A suspended one goes on from where it was, unless cold: then what was in its memory is given up.
func (s *Service) Resume(ctx context.Context, name string, cold bool) (api.ProvisionReply, error) {
	v, err := s.find(name)
	if err != nil {
		return api.ProvisionReply{}, err
	}
	return s.start(ctx, v, false, cold)
}

func (s *Service) start(ctx context.Context, v *vm, again, cold bool) (api.ProvisionReply, error) {
	if err := s.startTurn(ctx, v, again, cold); err != nil {
		return api.ProvisionReply{}, err
	}
	if _, err := v.running(ctx); err != nil {
		return api.ProvisionReply{}, err
	}
	return s.reply(v), nil
}

// startTurn is the part of start that needs the VM's turn.
func (s *Service) startTurn(ctx context.Context, v *vm, again, cold bool) error {
	if err := v.take(ctx); err != nil {
		return err
	}
	defer v.give()
	if again {
		if err := s.endNow(ctx, v, false); err != nil {
			return err
		}
	}
	if err := s.adoptStray(ctx, v); err != nil {
		return err
	}
	// One whose suspend an earlier service has begun goes on then, whether that succeeds or not.
	w, err := v.await(ctx, func(w view) bool { return w.life == nil || !w.status.Suspending })
	if err != nil {
		return err
	}
	if w.life != nil && w.state != lifecycle.Booting && w.state != lifecycle.Running { // on its way down, or down and not yet gone
		select {
		case <-w.life.done:
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the caller's own
		}
		w = v.view()
	}
	if w.life != nil {
		return nil
	}
	if w.gone {
		return notRunning(w)
	}
	err = s.startAgain(ctx, v, cold)
	// A worker that the service before started as it was killed may have taken its lock only now.
	if err != nil && s.adoptStray(ctx, v) == nil && v.view().life != nil {
		return nil
	}
	return err
}

// startAgain starts the worker of a named VM that is down.
func (s *Service) startAgain(ctx context.Context, v *vm, cold bool) error {
	set, err := s.opts.Settings()
	if err != nil {
		return err
	}
	if err := checkSpace(s.opts.Home.Run()); err != nil {
		return err
	}
	if err := s.reserve(v, set.VM.MaxVMs); err != nil {
		return err
	}
	defer v.update(func() { v.starting = false })
	w := v.view()
	if image.Rewinding(w.dir) {
		if err := s.finishRewind(v); err != nil {
			return err
		}
	}
	spec := w.spec
	spec.FormerID, spec.Cold, spec.ForkedMemory = "", cold, false
	if os.Geteuid() == 0 && spec.UID == 0 { // it was made by another user's service, or its description was lost
		s.mu.Lock()
		spec.UID = s.freeUIDLocked()
		s.mu.Unlock()
		spec.GID = spec.UID
	}
	refresh(&spec, set)
	if err := writeSpec(w.dir.Spec(), spec); err != nil {
		return err
	}
	v.update(func() { v.spec = spec })
	return s.launch(ctx, v)
}

// reserve counts a VM that is down among those that run, if one more may.
func (s *Service) reserve(v *vm, limit int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.roomLocked(limit); err != nil {
		return err
	}
	v.update(func() { v.starting = true })
	return nil
}

// Purge destroys the unnamed VMs, and the named ones too when all is set.
func (s *Service) Purge(ctx context.Context, all bool) (api.PurgeReply, error) {
	var mu sync.Mutex
	var reply api.PurgeReply
	var failed []error
	var wg sync.WaitGroup
	for _, v := range s.all() {
		w := v.view()
		named := w.spec.Name != ""
		if named && !all || w.spec.Pooled {
			continue
		}
		wg.Go(func() {
			err := s.end(ctx, v, func(w view) (destroy bool, err error) {
				if w.spec.Name != "" && !all {
					return false, fault.New(fault.NotFound, "VM %s was named meanwhile", w.spec.Name)
				}
				return true, nil
			})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case fault.Is(err, fault.NotFound): // somebody else was faster
			case err != nil:
				failed = append(failed, err)
			case named:
				reply.PersistentPurged++
			default:
				reply.EphemeralPurged++
			}
		})
	}
	wg.Wait()
	reply.Purged = reply.PersistentPurged + reply.EphemeralPurged
	return reply, errors.Join(failed...)
}
