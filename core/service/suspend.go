package service

import (
	"context"
	"math"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

// suspendTime bounds saving the memory of a VM.
const suspendTime = 10 * time.Minute

// Suspend saves the memory of a named VM beside its disk and ends it. Resume goes on from there. When it cannot be saved it goes on.
func (s *Service) Suspend(ctx context.Context, id string) (api.Success, error) {
	var none api.Success
	v, err := s.find(id)
	if err != nil {
		return none, err
	}
	return s.suspend(ctx, v, 0)
}

// suspend is Suspend, or, with an idle time, only for a VM that nobody has used for that long.
func (s *Service) suspend(ctx context.Context, v *vm, idle time.Duration) (api.Success, error) {
	var none api.Success
	if err := v.take(ctx); err != nil {
		return none, err
	}
	defer v.give()
	w := v.view()
	id := w.spec.ID
	switch {
	case w.state == lifecycle.Suspended:
		v.update(func() { v.idle = v.idle && idle > 0 }) // who asks for it now wants it to stay so
		return api.Success{Success: true}, nil
	case w.spec.Name == "":
		return none, fault.New(fault.Conflict, "VM %s is unnamed: it is gone once it stops", id).WithHint("name it first: capsem persist %s NAME", id)
	case w.life == nil || w.state != lifecycle.Running:
		return none, notRunning(w)
	}
	if err := checkSpace(s.opts.Home.Run()); err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), suspendTime) // half a suspend helps nobody
	defer cancel()
	conn, err := workerclient.Dial(ctx, s.opts.Home.InstanceSocket(w.life.instance))
	if err != nil {
		return none, err //nolint:wrapcheck // says what it did
	}
	defer conn.Close()
	within := uint32(min(idle.Milliseconds(), math.MaxUint32)) //nolint:gosec // bounded
	if _, err := conn.Call(ctx, proto.WorkerRequest{Op: proto.OpSuspend, IdleMS: within}); err != nil {
		return none, err //nolint:wrapcheck // a fault
	}
	select {
	case <-w.life.done:
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	if now := v.view(); now.state != lifecycle.Suspended {
		return none, notRunning(now)
	}
	v.update(func() { v.idle = idle > 0 })
	return api.Success{Success: true}, nil
}
