package machine

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"capsem/core/fault"
	"capsem/core/ledger"
	"capsem/core/link"
	"capsem/core/proto"
	"capsem/core/snapshot"
)

const (
	// guestRequestTime bounds the request that a guest makes about snapshots.
	guestRequestTime = 10 * time.Second
	// maxSnapshotStreams is how many of them it may make at once.
	maxSnapshotStreams = 8
	// flushTime bounds writing out what the guest's kernel has of mapped files, before a snapshot.
	flushTime = 5 * time.Second
)

// openSnapshots opens the snapshots of the workspace and begins with the automatic ones. A VM runs without them, too; who asks for
// one is told why there are none.
func (w *Worker) openSnapshots(ctx context.Context) (closeAll func()) {
	if !w.cfg.Share {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	store, err := snapshot.Open(ctx, snapshot.Options{
		Workspace: w.dirNow().Workspace(), Dir: w.dirNow().Snapshots(), AutoMax: w.spec.Snapshots.AutoMax, ManualMax: w.spec.Snapshots.ManualMax,
		Quota: int64(w.spec.DiskMB) << 20, Log: w.log,
		Missed: func(why string) { w.note("no automatic snapshot", why, 0) },
		Made: func(m snapshot.Made) {
			w.record(ledger.SnapshotEvent{Time: time.Now(), Slot: m.Slot, Origin: m.Origin, Name: m.Name, Files: int64(m.Files)})
		},
	})
	if err != nil {
		w.log.Error("there are no snapshots of the workspace", "error", err)
		w.noSnapshots = err
		return cancel
	}
	w.snapshots = store
	return func() {
		cancel()
		w.mu.Lock()
		schedule := w.schedule
		w.mu.Unlock()
		if schedule != nil {
			schedule.Stop()
		}
		if err := store.Close(); err != nil {
			w.log.Warn("close snapshots", "error", err)
		}
	}
}

// doSnapshot does a request, from the owner or, with what it may do, from the guest.
func (w *Worker) doSnapshot(ctx context.Context, req *proto.SnapshotRequest, guest *snapshot.Guest) (answer snapshot.Answer, err error) {
	if w.snapshots == nil {
		if w.noSnapshots != nil {
			return nil, w.noSnapshots
		}
		return nil, fault.New(fault.Unavailable, "this VM has no snapshots")
	}
	if req.Op == proto.SnapshotCreate || req.Op == proto.SnapshotRevert || req.Op == proto.SnapshotChanges {
		w.flushFiles(ctx)
	}
	if req.Op == proto.SnapshotCreate {
		req.Name = nameOr(req.Name)
	}
	if guest != nil {
		answer, err = w.snapshots.DoGuest(ctx, req, *guest)
	} else {
		answer, err = w.snapshots.Do(ctx, req)
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	switch req.Op {
	case proto.SnapshotRevert, proto.SnapshotDelete, proto.SnapshotCompact:
		what := strings.Join(append(req.Checkpoints, string(req.Path), req.Checkpoint), " ")
		w.note("snapshots-"+string(req.Op), strings.ToValidUTF8(strings.TrimSpace(what), "\ufffd"), 0)
	}
	if s := w.sharesNow()[workspaceTag]; s != nil && req.Op == proto.SnapshotRevert {
		s.Invalidate("")
	}
	return answer, nil
}

// flushFiles has the guest write out what programs have changed in mapped files. One that does not answer has changed nothing that counts.
func (w *Worker) flushFiles(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	w.mu.Lock()
	a := w.agent
	w.mu.Unlock()
	if a == nil {
		return
	}
	if err := a.SyncFiles(ctx, workspaceDir); err != nil {
		w.log.Debug("the guest did not write out its files", "error", err)
	}
}

// ownerSnapshots answers the owner.
func (w *Worker) ownerSnapshots(ctx context.Context, c *client, req *proto.SnapshotRequest) error {
	answer, err := w.doSnapshot(ctx, req, nil)
	if err != nil {
		return refuse(c, err)
	}
	if err := proto.WriteFrame(c, proto.WorkerReply{}); err != nil {
		return errors.Join(err, answer(io.Discard)) // the owner left
	}
	return answer(c)
}

// serveSnapshots answers the guest.
func (w *Worker) serveSnapshots(ctx context.Context, st link.Stream) {
	_ = st.SetReadDeadline(time.Now().Add(guestRequestTime)) // a stream has deadlines
	var req proto.SnapshotRequest
	err := proto.ReadFrame(st, proto.MaxFrame, &req)
	if err == nil {
		err = req.Validate()
	}
	if err != nil {
		w.log.Debug("a request of the guest about snapshots", "error", err)
		return
	}
	answer, err := w.guestSnapshot(ctx, &req)
	var reply proto.SnapshotReply
	if err != nil {
		code, message, hint := fault.Public(err)
		reply.Error = &proto.StreamError{Code: string(code), Message: message, Hint: hint}
	}
	var to io.Writer = st
	if err := proto.WriteFrame(st, reply); err != nil {
		to = io.Discard // the guest left
	}
	if answer == nil {
		return
	}
	if err := answer(to); err != nil {
		w.log.Debug("an answer to the guest about snapshots", "error", err)
	}
}

// guestPrefix begins the names of snapshots that were made in the guest.
const guestPrefix = "guest-"

// guestSnapshot does a request of the guest. What the owner has kept by hand is the owner's: the guest cannot remove it.
func (w *Worker) guestSnapshot(ctx context.Context, req *proto.SnapshotRequest) (snapshot.Answer, error) {
	switch req.Op {
	case proto.SnapshotCreate, proto.SnapshotCompact:
		req.Name = guestPrefix + strings.TrimPrefix(nameOr(req.Name), guestPrefix)
	}
	return w.doSnapshot(ctx, req, w.guestsSnapshots())
}

// guestsSnapshots is what the guest may do with them.
func (w *Worker) guestsSnapshots() *snapshot.Guest {
	g := &snapshot.Guest{Prefix: guestPrefix}
	if s := w.sharesNow()[workspaceTag]; s != nil {
		g.Room = s
	}
	return g
}

// nameOr is the name of a snapshot that nobody has named.
func nameOr(name string) string {
	if name == "" {
		return time.Now().UTC().Format("20060102-150405")
	}
	return name
}

// scheduleSnapshots begins with the automatic ones, once the guest answers: a start waits for no disk on their account.
func (w *Worker) scheduleSnapshots(ctx context.Context) {
	if w.snapshots == nil {
		return
	}
	plan := snapshot.Schedule{Interval: time.Duration(w.spec.Snapshots.IntervalSecs) * time.Second}
	schedule, err := snapshot.StartScheduler(context.WithoutCancel(ctx), w.snapshots, plan)
	if err != nil {
		if !fault.Is(err, fault.Conflict) { // after a reboot it goes on
			w.log.Error("no automatic snapshots are made", "error", err)
		}
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.schedule = schedule
}
