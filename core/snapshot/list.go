package snapshot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"capsem/core/api"
	"capsem/core/fault"
)

// maxLooks bounds how often a list is begun anew because snapshots went meanwhile.
const maxLooks = 5

// consistent calls look until no snapshot went while it looked.
func (s *Store) consistent(ctx context.Context, look func() error) error {
	s.readers.RLock()
	defer s.readers.RUnlock()
	for range maxLooks {
		if s.isClosed() {
			return fault.New(fault.Unavailable, "the snapshots are closed")
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("look at snapshots: %w", context.Cause(ctx))
		}
		if err := look(); !errors.Is(err, errReplaced) {
			return err
		}
	}
	return fault.New(fault.Conflict, "the snapshots kept changing").WithHint("try again")
}

// each calls do with all snapshots that can be read, oldest first.
func (s *Store) each(do func(m *manifest) error) error {
	for _, h := range s.headers() {
		m, err := s.manifest(h)
		if fault.Is(err, fault.Unavailable) {
			continue // it is named among the damaged ones
		}
		if err != nil {
			return err
		}
		if err := do(m); err != nil {
			return err
		}
	}
	return nil
}

// List tells of all snapshots, oldest first, each with what changed since the one before. It does not wait for others.
func (s *Store) List(ctx context.Context) (out api.SnapshotsReply, err error) {
	err = s.consistent(ctx, func() error {
		now, left := s.opts.Clock(), maxListed
		out = api.SnapshotsReply{Snapshots: []api.Snapshot{}, AutoMax: s.opts.AutoMax, ManualMax: s.opts.ManualMax}
		var last []entry
		err := s.each(func(m *manifest) error {
			one := api.Snapshot{
				Checkpoint: m.id(), Slot: m.Slot, Origin: m.Origin, Name: m.Name, Hash: m.Hash.String(), Created: m.created().UTC(),
				Age: m.age(now), FilesCount: m.Files, Changes: []api.SnapshotChange{},
			}
			compare(last, m.entries, func(was, is *entry) bool {
				if left--; left < 0 {
					out.Truncated = true
					return false
				}
				one.Changes = append(one.Changes, changeOf(was, is, api.OpNew))
				return true
			})
			out.Snapshots = append(out.Snapshots, one)
			last = m.entries
			return nil
		})
		out.ManualAvailable = s.manualLeft()
		s.mu.Lock()
		out.Damaged, out.AutoFailed = slices.Sorted(maps.Keys(s.damaged)), s.missed
		s.mu.Unlock()
		return err
	})
	return out, explain("list snapshots", err)
}

// Changes tells what in the workspace differs from its snapshots: each path once, with the newest snapshot that shows a difference.
func (s *Store) Changes(ctx context.Context) (api.WorkspaceChangesReply, error) {
	out := api.WorkspaceChangesReply{Changes: []api.WorkspaceChange{}}
	if err := s.begin(ctx); err != nil {
		return out, err
	}
	defer s.end()
	live, err := s.scan(ctx, false)
	if err != nil {
		return out, explain("compare with the snapshots", err)
	}
	now, seen := s.opts.Clock(), map[string]bool{}
	all := s.headers()
	for _, h := range slices.Backward(all) {
		m, err := s.manifest(h)
		if fault.Is(err, fault.Unavailable) {
			continue
		}
		if err != nil {
			return out, explain("compare with the snapshots", err)
		}
		compare(m.entries, live.entries, func(was, is *entry) bool {
			c := changeOf(was, is, api.OpCreated)
			if seen[c.Path] {
				return true
			}
			if len(seen) == maxListed {
				out.Truncated = true
				return false
			}
			seen[c.Path] = true
			out.Changes = append(out.Changes, api.WorkspaceChange{SnapshotChange: c, Checkpoint: m.id(), Origin: m.Origin, Age: m.age(now)})
			return true
		})
	}
	slices.SortFunc(out.Changes, func(a, b api.WorkspaceChange) int { return treeOrder(a.Path, b.Path) })
	return out, nil
}

// History tells of a path in all snapshots, newest first. It does not wait for others.
func (s *Store) History(ctx context.Context, path string) (out api.SnapshotHistory, err error) {
	clean, err := cleanPath(path)
	if err != nil {
		return out, err
	}
	err = s.consistent(ctx, func() error {
		out = api.SnapshotHistory{Path: clean, CurrentSize: s.sizeNow(clean), Versions: []api.SnapshotVersion{}}
		now := s.opts.Clock()
		var last []entry
		err := s.each(func(m *manifest) error {
			is := m.under(clean)
			if len(is) == 0 && len(last) == 0 {
				return nil
			}
			v := api.SnapshotVersion{Checkpoint: m.id(), Origin: m.Origin, Name: m.Name, Age: m.age(now), Status: api.OpModified}
			switch {
			case len(is) == 0:
				v.Status = api.OpDeleted
			case len(last) == 0:
				v.Status = api.OpNew
			case equal(last, is):
				v.Status = api.OpUnchanged
			}
			if len(is) > 0 && is[0].path == clean && is[0].kind != kindDir {
				v.Size = is[0].size
			}
			out.Versions = append(out.Versions, v)
			last = is
			return nil
		})
		slices.Reverse(out.Versions)
		return err
	})
	if err == nil && out.CurrentSize == nil && len(out.Versions) == 0 {
		err = fault.New(fault.NotFound, "there is no %s, neither now nor in any snapshot", shown(clean))
	}
	return out, explain("look up the history", err)
}

// sizeNow is the size of what is at a path now; nil for nothing, 0 for a directory.
func (s *Store) sizeNow(path string) *int64 {
	size := int64(0)
	if path == "" {
		return &size
	}
	f, _, err := openIn(s.root, parent(path), dirFlags)
	if err != nil {
		return nil
	}
	defer f.Close()
	st := stat{}
	err = widened(int(f.Fd()), func() (err error) { st, err = statAt(int(f.Fd()), base(path)); return err })
	if err != nil || st.kind == 0 {
		return nil
	}
	if st.kind != kindDir {
		size = st.size
	}
	return &size
}

// Delete removes a manual snapshot or one that a revert left. Automatic ones go by themselves.
func (s *Store) Delete(ctx context.Context, id string) error { return s.deleteFor(ctx, nil, id) }

func (s *Store) deleteFor(ctx context.Context, g *Guest, id string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	h, err := s.lookup(id)
	if err != nil {
		return err
	}
	if err := errors.Join(s.deletable(h), g.may(h)); err != nil {
		return err
	}
	return explain("delete "+id, s.remove(h))
}

func (s *Store) deletable(h header) error {
	if h.Origin == api.OriginAuto {
		return fault.New(fault.Forbidden, "%s is an automatic snapshot, which goes by itself", h.id()).WithHint("delete manual snapshots only")
	}
	if s.pinned(h.Slot) {
		return fault.New(fault.Conflict, "%s is being read", h.id()).WithHint("try again when that is done")
	}
	return nil
}

func (s *Store) remove(h header) error {
	old := s.entriesOf([]header{h})
	if err := s.unname(h); err != nil {
		return err
	}
	return s.objects.release(old)
}

// Used is how many bytes the stored contents take.
func (s *Store) Used() int64 {
	s.objects.mu.Lock()
	defer s.objects.mu.Unlock()
	return s.objects.used
}
