package service

import (
	"context"
	"errors"
	"os"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/image"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/snapshot"
)

// Checkpoint keeps the whole state of a named VM, of one that runs with its memory, for Rewind.
func (s *Service) Checkpoint(ctx context.Context, id string, req api.CheckpointRequest) (api.Checkpoint, error) {
	var none api.Checkpoint
	v, err := s.find(id)
	if err != nil {
		return none, err
	}
	if err := v.take(ctx); err != nil {
		return none, err
	}
	defer v.give()
	w := v.view()
	if w.spec.Name == "" {
		return none, fault.New(fault.Conflict, "VM %s is unnamed: it cannot be rewound", id).WithHint("name it first: capsem persist %s NAME", id)
	}
	img, err := s.keep(ctx, v, image.Checkpoints(w.dir, id), req.Name, req.Description)
	if err != nil {
		return none, err
	}
	s.log.Info("checkpoint", "vm", id, "name", img.Name, "memory", img.HasMemory())
	return describeCheckpoint(img), nil
}

// Checkpoints lists the checkpoints of a VM.
func (s *Service) Checkpoints(id string) (api.CheckpointsReply, error) {
	v, err := s.find(id)
	if err != nil {
		return api.CheckpointsReply{}, err
	}
	all, err := image.Checkpoints(v.view().dir, id).List()
	if err != nil {
		return api.CheckpointsReply{}, err //nolint:wrapcheck // says what it did
	}
	reply := api.CheckpointsReply{Checkpoints: []api.Checkpoint{}}
	for _, i := range all {
		reply.Checkpoints = append(reply.Checkpoints, describeCheckpoint(i))
	}
	return reply, nil
}

// DeleteCheckpoint removes a checkpoint of a VM.
func (s *Service) DeleteCheckpoint(ctx context.Context, id, name string) error {
	v, err := s.find(id)
	if err != nil {
		return err
	}
	if err := v.take(ctx); err != nil {
		return err
	}
	defer v.give()
	return image.Checkpoints(v.view().dir, id).Delete(name) //nolint:wrapcheck // a fault
}

func describeCheckpoint(i *image.Image) api.Checkpoint {
	return api.Checkpoint{
		Name: i.Name, Description: i.Description, CreatedAt: time.Unix(0, i.CreatedNS).UTC().Format(time.RFC3339),
		Memory: i.HasMemory(), SizeBytes: diskUse(i.Dir),
	}
}

// Rewind puts a VM back to a checkpoint: memory, disk and workspace. It runs afterwards if it ran before or does so in the
// checkpoint. What is recorded of it is not rewound.
func (s *Service) Rewind(ctx context.Context, id, name string) (api.ProvisionReply, error) {
	var none api.ProvisionReply
	v, err := s.find(id)
	if err != nil {
		return none, err
	}
	runs, err := s.rewindTurn(ctx, v, id, name)
	if err != nil {
		return none, err
	}
	if runs {
		if _, err := v.running(ctx); err != nil {
			return none, err
		}
	}
	return s.reply(v), nil
}

func (s *Service) rewindTurn(ctx context.Context, v *vm, id, name string) (runs bool, err error) {
	if err := v.take(ctx); err != nil {
		return false, err
	}
	defer v.give()
	w := v.view()
	to, err := image.Checkpoints(w.dir, id).Find(name)
	if err != nil {
		return false, err //nolint:wrapcheck // a fault
	}
	if err := checkSpace(s.opts.Home.Run()); err != nil {
		return false, err
	}
	if err := s.adoptStray(ctx, v); err != nil {
		return false, err
	}
	s.opts.step("stage rewind")
	if err := to.Stage(w.dir); err != nil {
		return false, noRoom(err, "no space left to rewind VM %s", id)
	}
	runs = v.view().life != nil || to.HasMemory()
	if v.view().life != nil {
		if err := s.endLife(ctx, v, proto.WorkerRequest{Op: proto.OpKill}, killGrace, false); err != nil {
			return false, errors.Join(err, image.Unstage(w.dir))
		}
	}
	v.settling.Lock()
	err = s.rewindDown(ctx, v)
	v.settling.Unlock()
	if err != nil || !runs {
		return false, err
	}
	s.log.Info("rewound", "vm", id, "to", name)
	return true, s.startAgain(ctx, v, false)
}

// rewindDown rewinds a VM that has no worker to what was staged.
func (s *Service) rewindDown(ctx context.Context, v *vm) error {
	w := v.view()
	if w.gone {
		return notRunning(w)
	}
	// A revert that was cut off belongs to the files that are there now.
	if err := snapshot.Settle(context.WithoutCancel(ctx), s.snapshotsOf(w)); err != nil {
		return errors.Join(err, image.Unstage(w.dir))
	}
	s.opts.step("commit rewind")
	if err := image.Commit(w.dir); err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	return s.finishRewind(v)
}

// finishRewind completes a rewind that was committed.
func (s *Service) finishRewind(v *vm) error {
	w := v.view()
	s.opts.step("finish rewind")
	return image.FinishRewind(w.dir, func(memory bool) error { //nolint:wrapcheck // says what it did
		to := lifecycle.Stopped
		if memory {
			to = lifecycle.Suspended
		}
		v.update(func() { v.state, v.lastError, v.idle = to, "", false })
		s.opts.step("note rewind")
		return note(w, to, "")
	})
}

// settleCheckpoints completes rewinds that a crash has cut short, and removes what else it left of checkpoints.
func (s *Service) settleCheckpoints() {
	for _, v := range s.all() {
		w := v.view()
		if w.spec.Name == "" || w.gone {
			continue
		}
		err := errors.Join(sweepCheckpoints(w.dir), image.Unstage(w.dir))
		if w.life == nil && image.Rewinding(w.dir) {
			s.log.Info("completing a rewind", "vm", w.spec.ID)
			err = errors.Join(err, s.finishRewind(v))
		}
		if err != nil {
			s.log.Warn("cannot settle the checkpoints of a VM", "vm", w.spec.ID, "error", err)
		}
	}
}

// sweepCheckpoints removes what a crash has left of checkpoints that were being made or removed.
func sweepCheckpoints(dir paths.VM) error {
	if _, err := os.Lstat(dir.Checkpoints()); err != nil {
		return nil //nolint:nilerr // most VMs have none
	}
	return image.Checkpoints(dir, "").Sweep() //nolint:wrapcheck // says what it did
}
