package service

import (
	"context"
	"errors"
	"io"

	"capsem/core/image"
	"capsem/core/proto"
	"capsem/core/snapshot"
	"capsem/core/workerclient"
)

// Snapshots does something with the snapshots of a VM's workspace, of one that runs through its worker, which has them open. The
// answer is JSON, or the bytes of a file. The caller closes it.
func (s *Service) Snapshots(ctx context.Context, id string, req *proto.SnapshotRequest) (io.ReadCloser, error) {
	v, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if err := v.take(ctx); err != nil {
		return nil, err
	}
	w := v.view()
	if w.life == nil {
		defer v.give()
		if err := s.settleFiles(ctx, v); err != nil {
			return nil, err
		}
		return s.storedSnapshots(ctx, v.view(), req)
	}
	v.give() // it may take its time
	conn, err := workerclient.Dial(ctx, s.opts.Home.InstanceSocket(v.instance(w.life)))
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	return conn.Stream(ctx, proto.WorkerRequest{Op: proto.OpSnapshots, Snapshots: req}) //nolint:wrapcheck // a fault
}

// storedSnapshots does it for a VM that is down.
func (s *Service) storedSnapshots(ctx context.Context, w view, req *proto.SnapshotRequest) (io.ReadCloser, error) {
	store, err := snapshot.Open(ctx, s.snapshotsOf(w))
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	answer, err := store.Do(ctx, req)
	if err := errors.Join(err, store.Close()); err != nil {
		if answer != nil {
			err = errors.Join(err, answer(io.Discard))
		}
		return nil, err
	}
	return newAnswering(answer), nil
}

// answering is an answer as it is read: a file of a snapshot may be larger than any memory. It needs the store no more.
type answering struct {
	*io.PipeReader
	done chan struct{}
}

func newAnswering(answer snapshot.Answer) *answering {
	r, w := io.Pipe()
	a := &answering{r, make(chan struct{})}
	go func() {
		defer close(a.done)
		_ = w.CloseWithError(answer(w)) // never fails
	}()
	return a
}

// Close ends the reading.
func (a *answering) Close() error {
	defer func() { <-a.done }()
	return a.PipeReader.Close() //nolint:wrapcheck // never fails
}

// snapshotsOf says how to open the snapshots of a VM that is down.
func (s *Service) snapshotsOf(w view) snapshot.Options {
	return snapshot.Options{
		Workspace: w.dir.Workspace(), Dir: w.dir.Snapshots(), AutoMax: w.spec.Snapshots.AutoMax, ManualMax: w.spec.Snapshots.ManualMax,
		Quota: int64(w.spec.DiskMB) << 20, Log: s.log.With("vm", w.spec.ID),
	}
}

// settleFiles completes what a crash has cut short in the files of a VM that has no worker: a rewind, or the revert of a snapshot. The
// caller has the VM's turn.
func (s *Service) settleFiles(ctx context.Context, v *vm) error {
	w := v.view()
	if image.Rewinding(w.dir) {
		if err := s.finishRewind(v); err != nil {
			return err
		}
	}
	return snapshot.Settle(ctx, s.snapshotsOf(w)) //nolint:wrapcheck // a fault
}
