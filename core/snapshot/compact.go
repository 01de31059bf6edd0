package snapshot

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"capsem/core/api"
	"capsem/core/fault"
)

// Compact makes one manual snapshot of several: of each path the newest version. The sources are deleted, automatic ones excepted. Without a
// name it is compacted_ and the time.
func (s *Store) Compact(ctx context.Context, ids []string, name string) (out api.SnapshotCompacted, err error) {
	return s.compactFor(ctx, nil, ids, name)
}

func (s *Store) compactFor(ctx context.Context, g *Guest, ids []string, name string) (out api.SnapshotCompacted, err error) {
	if name == "" {
		name = "compacted_" + strconv.FormatInt(s.opts.Clock().Unix(), 10)
	}
	if err := checkName(name); err != nil {
		return out, err
	}
	if err := s.begin(ctx); err != nil {
		return out, err
	}
	defer s.end()
	out, err = s.compact(g, ids, name)
	return out, explain("compact snapshots", err)
}

func (s *Store) compact(g *Guest, ids []string, name string) (out api.SnapshotCompacted, err error) {
	sources, err := s.sources(g, ids)
	if err != nil {
		return out, err
	}
	merged := &manifest{}
	for _, h := range sources {
		m, err := s.manifest(h)
		if err != nil {
			return out, err
		}
		merged.entries = merge(merged.entries, m.entries)
		merged.Skipped = max(merged.Skipped, m.Skipped)
	}
	if len(merged.entries) > maxEntries {
		return out, fault.New(fault.LimitReached, "together they have more than %d files", maxEntries)
	}
	merged.finish()
	for i := range merged.entries {
		if e := &merged.entries[i]; e.kind == kindFile && !s.objects.has(e.hash) {
			return out, fault.New(fault.Unavailable, "the content of %s, object %s, is missing or damaged", shown(e.path), e.hash).
				WithHint("leave the snapshot out that has it")
		}
	}
	merged = merged.as(api.OriginManual, name)
	into, err := s.intoSlot(sources)
	if err != nil {
		return out, err
	}
	if err := s.commit(merged, into); err != nil {
		return out, err
	}
	out = api.SnapshotCompacted{
		Compacted: true, Checkpoint: merged.id(), Name: name, Hash: merged.Hash.String(), MergedCount: len(sources),
		DeletedCheckpoints: []string{}, FilesCount: merged.Files,
	}
	for _, h := range sources {
		if h.Origin == api.OriginAuto {
			continue
		}
		if into == nil || h.Slot != *into {
			err = errors.Join(err, s.remove(h))
		}
		out.DeletedCheckpoints = append(out.DeletedCheckpoints, h.id())
	}
	return out, err
}

// sources finds the snapshots, oldest first.
func (s *Store) sources(g *Guest, ids []string) ([]header, error) {
	var out []header
	for _, id := range ids {
		h, err := s.lookup(id)
		if err != nil {
			return nil, err
		}
		if h.Origin != api.OriginAuto {
			if err := errors.Join(s.deletable(h), g.may(h)); err != nil {
				return nil, err
			}
		}
		if !slices.ContainsFunc(out, func(o header) bool { return o.Seq == h.Seq }) {
			out = append(out, h)
		}
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Invalid, "no snapshots to compact were named").WithHint("name those to be made one")
	}
	slices.SortFunc(out, func(a, b header) int { return int(a.Seq) - int(b.Seq) }) //nolint:gosec // numbers of snapshots
	return out, nil
}

// intoSlot is nil where there is a free slot. Where there is none, the oldest manual source makes room.
func (s *Store) intoSlot(sources []header) (*int, error) {
	_, _, err := s.place(api.OriginManual)
	if err == nil {
		return nil, nil //nolint:nilnil // nil is the answer
	}
	for _, h := range sources {
		if h.Origin == api.OriginManual {
			return &h.Slot, nil
		}
	}
	return nil, err
}

// merge puts newer entries over older ones. Where one has a directory and the other has none, the newer decides.
func merge(older, newer []entry) []entry {
	out := make([]entry, 0, max(len(older), len(newer)))
	hidden := "\x00" // what the newer has no directory for
	for len(older) > 0 || len(newer) > 0 {
		if len(older) > 0 && below(older[0].path, hidden) {
			older = older[1:]
			continue
		}
		if len(newer) == 0 || len(older) > 0 && treeOrder(older[0].path, newer[0].path) < 0 {
			out, older = append(out, older[0]), older[1:]
			continue
		}
		if newer[0].kind != kindDir {
			hidden = newer[0].path
		}
		if len(older) > 0 && older[0].path == newer[0].path {
			older = older[1:]
		}
		out, newer = append(out, newer[0]), newer[1:]
	}
	return out
}
