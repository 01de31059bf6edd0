package service

import (
	"context"
	"errors"
	"sync"
	"time"

	"capsem/core/api"
	"capsem/core/config"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

// poolLook is how often the pool is held against the settings; taking a VM out of it does so at once.
const poolLook = 30 * time.Second

// pool is what keeps VMs ready.
type pool struct {
	// taken is sent to when a VM is handed out.
	taken chan struct{}
	stop  context.CancelFunc
	done  chan struct{}
}

// endPool bounds ending the VMs of the pool.
const endPool = 10 * time.Second

func (s *Service) startPool() {
	ctx, cancel := context.WithCancel(s.ctx)
	s.pool = pool{taken: make(chan struct{}, 1), stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.pool.done)
		s.keepPool(ctx)
	}()
}

// closePool ends the pool and its VMs.
func (s *Service) closePool() {
	if s.pool.stop == nil {
		return // it never began
	}
	s.pool.stop()
	<-s.pool.done
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), endPool)
	defer cancel()
	var wg sync.WaitGroup
	for _, v := range s.all() {
		if v.view().spec.Pooled {
			wg.Go(func() {
				if err := s.dropPooled(ctx, v); err != nil {
					s.log.Warn("a VM of the pool stays", "vm", v.id(), "error", fault.Line(err))
				}
			})
		}
	}
	wg.Wait()
}

// keepPool has as many VMs ready as the settings say (vm.pool.size), until the service ends. They are unnamed VMs of the default
// sizes that nobody sees, and that do not count, before they are handed out.
func (s *Service) keepPool(ctx context.Context) {
	timer := time.NewTimer(poolLook)
	defer timer.Stop()
	for {
		if err := s.fillPool(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the pool is not full", "error", fault.Line(err))
		}
		timer.Reset(poolLook)
		select {
		case <-s.pool.taken:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// fillPool ends the VMs of the pool that are too many or not what is wanted now, and makes those that are missing.
func (s *Service) fillPool(ctx context.Context) error {
	set, err := s.opts.Settings()
	if err != nil {
		return err
	}
	var want proto.VMSpec
	if set.VM.PoolSize > 0 {
		if want, err = s.newSpec(api.ProvisionRequest{}, set); err != nil {
			return err
		}
	}
	ready := 0
	var failed []error
	for _, v := range s.all() {
		w := v.view()
		switch {
		case !w.spec.Pooled || w.gone:
		case ready < set.VM.PoolSize && w.life != nil && alike(w.spec, want):
			ready++
		default:
			failed = append(failed, s.dropPooled(ctx, v))
		}
	}
	for ; ready < set.VM.PoolSize && ctx.Err() == nil; ready++ {
		if err := s.addPooled(ctx, set); err != nil {
			return errors.Join(append(failed, err)...)
		}
	}
	return errors.Join(failed...)
}

func (s *Service) addPooled(ctx context.Context, set *config.Settings) error {
	spec, err := s.newSpec(api.ProvisionRequest{}, set)
	if err != nil {
		return err
	}
	spec.Pooled = true
	v, err := s.createOf(ctx, spec, set)
	if err != nil {
		return err
	}
	_, err = v.running(ctx) // one after another
	return err
}

// dropPooled ends a VM of the pool, unless it has been handed out.
func (s *Service) dropPooled(ctx context.Context, v *vm) error {
	err := s.end(ctx, v, func(w view) (destroy bool, err error) {
		if !w.spec.Pooled {
			return false, fault.New(fault.NotFound, "VM %s is in use", w.spec.ID)
		}
		return true, nil
	})
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// alike reports whether a VM of one spec does for another.
func alike(a, b proto.VMSpec) bool {
	return a.CPUs == b.CPUs && a.MemoryMB == b.MemoryMB && a.DiskMB == b.DiskMB && a.AssetVersion == b.AssetVersion &&
		a.Accelerator == b.Accelerator && a.Timezone == b.Timezone
}

// fromPool hands a ready VM out, if there is one that does; nil if not.
func (s *Service) fromPool(ctx context.Context, spec proto.VMSpec, set *config.Settings) (*vm, error) {
	if set.VM.PoolSize == 0 || spec.Name != "" || spec.Image != "" || spec.Cold || len(spec.Env) > 0 || len(spec.Mounts) > 0 || spec.Policy != "" || spec.Secrets != nil {
		return nil, nil //nolint:nilnil // no pool is no VM
	}
	for _, v := range s.all() {
		w := v.view()
		if !w.spec.Pooled || w.state != lifecycle.Running || !alike(w.spec, spec) {
			continue
		}
		ok, err := s.handOut(ctx, v, set)
		if ok || err != nil {
			return v, err
		}
	}
	return nil, nil //nolint:nilnil // an empty pool is no VM
}

// handOut makes a VM of the pool an unnamed one of its user, on disk first: it is never handed out again.
func (s *Service) handOut(ctx context.Context, v *vm, set *config.Settings) (ok bool, err error) {
	if err := v.take(ctx); err != nil {
		return false, nil //nolint:nilerr // it is gone, or its user is
	}
	defer v.give()
	w := v.view()
	if !w.spec.Pooled || w.state != lifecycle.Running || w.life == nil {
		return false, nil
	}
	if err := s.reserve(v, set.VM.MaxVMs); err != nil {
		return false, err
	}
	defer v.update(func() { v.starting = false })
	spec := w.spec
	spec.Pooled = false
	if err := writeSpec(w.dir.Spec(), spec); err != nil {
		return false, err
	}
	v.update(func() { v.spec = spec })
	s.records.begun(spec)
	s.log.Info("handed out of the pool", "vm", spec.ID)
	select {
	case s.pool.taken <- struct{}{}:
	default:
	}
	return true, nil
}
