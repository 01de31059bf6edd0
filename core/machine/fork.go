package machine

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"capsem/core/checkpoint"
	"capsem/core/fault"
	"capsem/core/hypervisor"
	"capsem/core/image"
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

// syncTime is what the guest may take to write out what it has not written, before it is forked.
const syncTime = 10 * time.Second

// fork copies the VM's memory and disk, as they are at one moment, into the directory of an image that is being made. The VM stands
// still meanwhile, and goes on.
func (w *Worker) fork(ctx context.Context, dir string) error {
	if in := filepath.Dir(filepath.Clean(dir)); in != w.cfg.Home.Images() && in != w.dirNow().Checkpoints() {
		return fault.New(fault.Invalid, "%.200q is no place for an image", dir)
	}
	w.saving.Lock()
	defer w.saving.Unlock()
	vm, saver, err := w.mayFork()
	if err != nil {
		return err
	}
	if a, err := w.guest(ctx); err == nil { // so that the disk alone is of use too
		if err := w.flush(ctx, a); err != nil {
			w.log.Warn("the guest did not write everything out before it was forked", "error", err)
		}
	}
	files := image.NewMirror(w.dirNow().Dir(), dir)
	if err := files.Pass(); err != nil { // most of it, while the VM goes on
		return full(err, "no space left to fork VM %s", w.idNow())
	}
	if w.snapshots != nil { // half a revert is no state to copy
		letRevert, err := w.snapshots.Still(ctx)
		if err != nil {
			return err //nolint:wrapcheck // says what it did
		}
		defer letRevert()
	}
	began := time.Now()
	paused := true
	goOn := func() error {
		paused = false
		w.log.Info("forked", "pause", time.Since(began).Round(time.Millisecond))
		w.note("forked", "", time.Since(began))
		return vm.Resume(context.WithoutCancel(ctx)) //nolint:wrapcheck // says what it did
	}
	err = vm.Pause(ctx)
	if err == nil {
		err = checkpoint.Make(dir, w.want, func(to *os.File) ([]byte, error) {
			extra, err := w.copyTo(ctx, saver, to, dir, files)
			if err != nil {
				return nil, err
			}
			return extra, goOn()
		})
	}
	if paused {
		err = errors.Join(err, goOn())
	}
	return full(err, "no space left to fork VM %s", w.idNow())
}

// copyTo copies all of a machine that stands still.
func (w *Worker) copyTo(ctx context.Context, saver hypervisor.Saver, state *os.File, dir string, files *image.Mirror) (extra []byte, err error) {
	if err := saver.Save(ctx, state); err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	if extra, err = w.saveShares(ctx); err != nil {
		return nil, err
	}
	from := w.dirNow()
	if err := image.CopyDisk(from.SystemDisk(), filepath.Join(dir, filepath.Base(from.SystemDisk()))); err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	return extra, files.Pass() //nolint:wrapcheck // says what it did
}

func (w *Worker) mayFork() (hypervisor.Machine, hypervisor.Saver, error) {
	st, _, _ := w.board.get()
	w.mu.Lock()
	defer w.mu.Unlock()
	saver, ok := w.vm.(hypervisor.Saver)
	switch {
	case w.stands != "":
		return nil, nil, fault.New(fault.NoSpace, "VM %s stands still: %s", w.spec.ID, w.stands)
	case w.vm == nil || w.suspending || st.State != lifecycle.Running || w.wanted():
		return nil, nil, fault.New(fault.Conflict, "VM %s is %s, not Running", w.spec.ID, st.State)
	case !ok:
		return nil, nil, fault.New(fault.Unavailable, "this hypervisor cannot save a VM that runs").WithHint("stop it first")
	}
	return w.vm, saver, nil
}

func (w *Worker) flush(ctx context.Context, a guestAgent) error {
	ctx, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	_, err := runIn(ctx, a, "sync", io.Discard)
	return err
}

// forked gives up the memory of an image that does not fit this machine: its VM boots from the disk.
func (w *Worker) forked(misfit error) error {
	w.log.Warn("the memory of the image does not fit; booting from its disk", "error", misfit)
	w.board.update(func(st *proto.WorkerStatus) {
		st.Notes = append(st.Notes, "booted from the image's disk: "+fault.Plain(misfit.Error()))
	})
	return checkpoint.Discard(w.dirNow().Dir(), true) //nolint:wrapcheck // says what it did
}
