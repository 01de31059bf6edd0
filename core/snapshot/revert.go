package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"capsem/core/api"
	"capsem/core/fault"
)

// maxRounds bounds how often a revert looks again at a workspace that changes under it.
const maxRounds = 5

// revert is one that is under way.
type revert struct {
	s       *Store
	path    string
	target  *manifest
	undo    *manifest
	journal *journal
	// again says that something was in the way.
	again bool
	// touched are directories whose times are to be restored; after a crash, all.
	touched map[string]bool
	resumed bool
	// room is what the guest has left that asked for it; begun says that the workspace may have been changed.
	room  *holding
	begun bool
}

// Revert makes a file or directory what it was in a snapshot; the whole workspace if path is "". Without a checkpoint it takes the newest
// snapshot that has the path and differs. What was there before is kept in a snapshot of its own, named in the answer. A crash leaves
// the revert to be carried out by the next Open.
func (s *Store) Revert(ctx context.Context, path, checkpoint string) (api.SnapshotReverted, error) {
	return s.revertFor(ctx, nil, path, checkpoint)
}

func (s *Store) revertFor(ctx context.Context, g *Guest, path, checkpoint string) (api.SnapshotReverted, error) {
	clean, err := cleanPath(path)
	if err != nil {
		return api.SnapshotReverted{}, err
	}
	if err := s.begin(ctx); err != nil {
		return api.SnapshotReverted{}, err
	}
	defer s.end()
	done, err := s.revertTo(ctx, g.holding(), clean, checkpoint)
	if err != nil {
		return api.SnapshotReverted{}, explain("revert "+shown(clean), errors.Join(err, s.objects.collect()))
	}
	return done, nil
}

func (s *Store) revertTo(ctx context.Context, room *holding, path, checkpoint string) (done api.SnapshotReverted, err error) {
	if checkpoint != "" {
		if _, err := s.lookup(checkpoint); err != nil {
			return done, err
		}
	}
	live, err := s.scan(ctx, true)
	if err != nil {
		return done, err
	}
	target, err := s.target(live, path, checkpoint)
	if err != nil {
		return done, err
	}
	unpin := s.pin(target.header)
	defer unpin()
	r := &revert{s: s, path: path, target: target, room: room, journal: &journal{Version: 1, Path: []byte(path), Target: target.Seq}}
	ops, err := plan(live, target, path)
	if err != nil {
		return done, err
	}
	defer func() { room.release(r.begun) }()
	if err := s.stage(ctx, room, ops, 0); err != nil {
		return done, errors.Join(err, empty(s.dirs.revert))
	}
	r.undo = live.as(api.OriginRevert, "before_"+target.id())
	if err := s.commit(r.undo, nil); err != nil {
		return done, errors.Join(err, empty(s.dirs.revert))
	}
	r.journal.Undo, r.begun = r.undo.Seq, true
	if err := r.round(context.WithoutCancel(ctx), ops); err != nil {
		return done, r.unfinished(err)
	}
	if err := r.carryOut(context.WithoutCancel(ctx)); err != nil {
		return done, r.unfinished(err)
	}
	action := api.ActionRestored
	if path != "" && target.find(path) == nil {
		action = api.ActionDeleted
	}
	return api.SnapshotReverted{Reverted: true, Path: path, Action: action, Checkpoint: target.id(), Undo: r.undo.id()}, nil
}

// unfinished makes the next call that changes something carry the revert on.
func (r *revert) unfinished(err error) error {
	if j, jerr := r.s.readJournal(); jerr == nil && j == nil {
		return errors.Join(err, empty(r.s.dirs.revert))
	}
	r.s.pending = true
	return fmt.Errorf("what was there is kept as %s, and the revert will be carried on: %w", r.undo.id(), err)
}

// target chooses the snapshot to revert to.
func (s *Store) target(live *manifest, path, checkpoint string) (*manifest, error) {
	if checkpoint != "" {
		h, err := s.lookup(checkpoint)
		if err != nil {
			return nil, err
		}
		m, err := s.manifest(h)
		if err != nil {
			return nil, err
		}
		if path != "" && m.find(path) == nil && live.find(path) == nil {
			return nil, fault.New(fault.NotFound, "there is no %s, neither now nor in %s", shown(path), checkpoint)
		}
		if !differs(live, m, path) {
			return nil, fault.New(fault.Conflict, "%s is current already: it is as in %s", shown(path), checkpoint)
		}
		return m, nil
	}
	found := false
	all := s.headers()
	for _, h := range slices.Backward(all) {
		m, err := s.manifest(h)
		if fault.Is(err, fault.Unavailable) {
			continue // damaged, and said so in the log
		}
		if err != nil {
			return nil, err
		}
		if path != "" && m.find(path) == nil {
			continue
		}
		if found = true; differs(live, m, path) {
			return m, nil
		}
	}
	if !found {
		return nil, fault.New(fault.NotFound, "no snapshot has %s", shown(path)).WithHint("name a snapshot to revert to what it had, which may be nothing")
	}
	return nil, fault.New(fault.Conflict, "%s is current already: it is as in all snapshots that have it", shown(path))
}

// carryOut looks at what is left to do and does it, until nothing was in the way, and ends the revert.
func (r *revert) carryOut(ctx context.Context) error {
	for range maxRounds {
		if !r.again && r.touched != nil {
			return r.s.removeJournal()
		}
		live, err := r.s.scan(ctx, false)
		if err != nil {
			return err
		}
		ops, err := plan(live, r.target, r.path)
		if err != nil {
			return errors.Join(err, r.s.removeJournal())
		}
		if err := r.s.stage(ctx, r.room, ops, len(r.journal.Staged)); err != nil {
			return err
		}
		if err := r.round(ctx, ops); err != nil {
			return err
		}
	}
	if r.again {
		return errors.Join(fault.New(fault.Conflict, "the workspace kept changing, so %s is only partly what it was in %s", shown(r.path), r.target.id()).
			WithHint("revert to %s to undo this, or try again", r.undo.id()), r.s.removeJournal())
	}
	return r.s.removeJournal()
}

// round does what is staged.
func (r *revert) round(ctx context.Context, ops []op) error {
	from := len(r.journal.Staged)
	for _, o := range ops {
		r.journal.Staged = append(r.journal.Staged, []byte(o.path))
	}
	if from > 0 || r.resumed {
		// What was staged first came with the undo snapshot. After a power loss the rest must not be taken for somebody's late change.
		r.s.opts.before("sync staged")
		if err := syncAll(r.s.dirs.store); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
	}
	if err := r.s.writeJournal(r.journal); err != nil {
		return err
	}
	r.again, r.touched = false, map[string]bool{}
	if err := r.apply(ops, from); err != nil {
		return err
	}
	if err := r.keepLate(ctx); err != nil {
		return err
	}
	r.s.opts.before("sweep")
	return empty(r.s.dirs.revert)
}
