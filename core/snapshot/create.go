package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/fault"
)

// Create takes a snapshot. A manual one has a name and its pool may be full; an automatic one goes over the oldest of its ring, and is not
// made when nothing has changed since the last one.
func (s *Store) Create(ctx context.Context, origin, name string) (api.SnapshotCreated, error) {
	switch origin {
	case api.OriginManual:
		if err := checkName(name); err != nil {
			return api.SnapshotCreated{}, err
		}
	case api.OriginAuto:
		name = ""
	default:
		return api.SnapshotCreated{}, fault.New(fault.Invalid, "%.40q is not a kind of snapshot", origin).WithHint("use auto or manual")
	}
	if err := s.begin(ctx); err != nil {
		return api.SnapshotCreated{}, err
	}
	defer s.end()
	h, fresh, err := s.take(ctx, origin, name)
	if err != nil {
		return api.SnapshotCreated{}, explain("take a snapshot", errors.Join(err, s.objects.collect()))
	}
	return api.SnapshotCreated{
		Checkpoint: h.id(), Name: h.Name, Hash: h.Hash.String(), Origin: h.Origin, FilesCount: h.Files, Available: s.manualLeft(),
		Unchanged: !fresh, Skipped: h.Skipped,
	}, nil
}

func (s *Store) take(ctx context.Context, origin, name string) (h header, fresh bool, err error) {
	if _, _, err := s.place(origin); err != nil {
		return h, false, err
	}
	m, err := s.scan(ctx, true)
	if err != nil {
		return h, false, err
	}
	if last, ok := s.newest(api.OriginAuto); ok && origin == api.OriginAuto && last.Hash == m.Hash && s.whole(last) {
		return last, false, nil
	}
	m = m.as(origin, name)
	return m.header, true, s.commit(m, nil)
}

// whole reports whether a snapshot can still be read and has all its contents.
func (s *Store) whole(h header) bool {
	m, err := s.manifest(h)
	return err == nil && !slices.ContainsFunc(m.entries, func(e entry) bool { return e.kind == kindFile && !s.objects.has(e.hash) })
}

// as is a manifest of the same entries under its own header.
func (m *manifest) as(origin, name string) *manifest {
	out := *m
	out.Origin, out.Name = origin, name
	return &out
}

// commit makes a snapshot of entries whose contents are stored, in the place of its origin, or, with a slot, there. What it is to replace goes once
// it is safe.
func (s *Store) commit(m *manifest, slot *int) error {
	var drop []header
	if slot == nil {
		at, old, err := s.place(m.Origin)
		if err != nil {
			return err
		}
		m.Slot, drop = at, old
	} else {
		m.Slot = *slot
		if h, err := s.lookup(idOf(m.Slot)); err == nil {
			drop = append(drop, h)
		}
	}
	m.Created = s.opts.Clock().UnixNano()
	m.Seq = 1
	if last, ok := s.newest(""); ok {
		m.Seq = last.Seq + 1
		m.Created = max(m.Created, last.Created)
	}
	old := s.entriesOf(drop)
	named, err := s.writeManifest(m)
	if !named {
		return err
	}
	s.objects.use(m.entries)
	s.mu.Lock()
	for _, h := range drop {
		s.cache.drop(h.Seq)
	}
	s.table = append(slices.DeleteFunc(s.table, func(h header) bool { return h.Slot == m.Slot }), m.header)
	delete(s.damaged, m.id())
	s.cache.put(m)
	s.mu.Unlock()
	if s.opts.Made != nil {
		s.opts.Made(Made{Slot: m.Slot, Origin: m.Origin, Name: m.Name, Files: m.Files})
	}
	for _, h := range drop {
		if h.Slot != m.Slot {
			if err := s.unname(h); err != nil {
				return err
			}
		}
	}
	return errors.Join(err, s.objects.release(old))
}

// entriesOf returns what snapshots that are to go have.
func (s *Store) entriesOf(all []header) (out []entry) {
	for _, h := range all {
		m, err := s.manifest(h)
		if err != nil {
			s.opts.Log.Warn("contents of a snapshot are kept until the next start", "snapshot", h.id(), "err", err)
			continue
		}
		out = append(out, m.entries...)
	}
	return out
}

// writeManifest gives a snapshot its name, after all that it needs is on the disk. Once it is named it is there, even with an error.
func (s *Store) writeManifest(m *manifest) (named bool, err error) {
	data, err := m.encode()
	if err != nil {
		return false, err
	}
	s.opts.before("write manifest")
	if err := s.writeTemp("manifest", data, false); err != nil {
		return false, err
	}
	s.opts.before("sync")
	if err := syncAll(s.dirs.store); err != nil {
		return false, fmt.Errorf("sync: %w", err)
	}
	s.opts.before("name manifest")
	if err := unix.Renameat(s.dirs.temp, "manifest", s.dirs.manifests, m.id()); err != nil {
		return false, fmt.Errorf("name manifest: %w", err)
	}
	s.opts.before("sync manifests")
	if err := unix.Fsync(s.dirs.manifests); err != nil {
		return true, fmt.Errorf("sync: %w", err)
	}
	return true, nil
}

// writeTemp writes a file to tmp/, in the place of one that was left there.
func (s *Store) writeTemp(name string, data []byte, sync bool) error {
	if err := unix.Unlinkat(s.dirs.temp, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("write %s: %w", name, err)
	}
	fd, err := unix.Openat(s.dirs.temp, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	if err == nil && sync {
		s.opts.before("sync " + name)
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, unix.Unlinkat(s.dirs.temp, name, 0)))
	}
	return nil
}

// unname removes a snapshot's name; its contents are released after that.
func (s *Store) unname(h header) error {
	s.opts.before("remove manifest")
	if err := unix.Unlinkat(s.dirs.manifests, h.id(), 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", h.id(), err)
	}
	s.mu.Lock()
	s.cache.drop(h.Seq)
	s.table = slices.DeleteFunc(s.table, func(o header) bool { return o.Seq == h.Seq })
	s.mu.Unlock()
	if err := unix.Fsync(s.dirs.manifests); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}
