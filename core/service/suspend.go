package service

import (
	"context"
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
	if err := v.take(ctx); err != nil {
		return none, err
	}
	defer v.give()
	w := v.view()
	switch {
	case w.state == lifecycle.Suspended:
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
	if _, err := conn.Call(ctx, proto.WorkerRequest{Op: proto.OpSuspend}); err != nil {
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
	return api.Success{Success: true}, nil
}
