package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/fault"
)

// maxCached bounds the entries of all manifests that are kept in memory.
const maxCached = 200_000

// cache keeps manifests that were read, by their number.
type cache struct {
	manifests []*manifest // the one used last is last
	entries   int
}

func (c *cache) get(seq uint64) *manifest {
	i := slices.IndexFunc(c.manifests, func(m *manifest) bool { return m.Seq == seq })
	if i < 0 {
		return nil
	}
	m := c.manifests[i]
	c.manifests = append(slices.Delete(c.manifests, i, i+1), m)
	return m
}

func (c *cache) drop(seq uint64) {
	if i := slices.IndexFunc(c.manifests, func(m *manifest) bool { return m.Seq == seq }); i >= 0 {
		c.entries -= len(c.manifests[i].entries)
		c.manifests = slices.Delete(c.manifests, i, i+1)
	}
}

func (c *cache) put(m *manifest) {
	c.drop(m.Seq)
	for len(c.manifests) > 0 && c.entries+len(m.entries) > maxCached {
		c.drop(c.manifests[0].Seq)
	}
	if len(m.entries) <= maxCached {
		c.manifests, c.entries = append(c.manifests, m), c.entries+len(m.entries)
	}
}

// errReplaced is a snapshot that went while it was looked at.
var errReplaced = errors.New("the snapshot is no longer there")

// loadManifests learns which snapshots there are and which contents they need.
func (s *Store) loadManifests() error {
	names, err := list(s.dirs.manifests, "")
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	for _, name := range names {
		slot, err := parseID(name)
		if err != nil {
			continue
		}
		m, err := s.readManifest(slot)
		if errors.Is(err, errDamaged) {
			s.setAside(name, err)
			continue
		}
		if err != nil {
			return err
		}
		s.table = append(s.table, m.header)
		s.objects.use(m.entries)
		s.cache.put(m)
	}
	slices.SortFunc(s.table, func(a, b header) int { return int(a.Seq) - int(b.Seq) }) //nolint:gosec // numbers of snapshots
	return nil
}

func (s *Store) readManifest(slot int) (*manifest, error) {
	name := idOf(slot)
	fd, err := unix.Openat(s.dirs.manifests, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, errReplaced
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	st, err := statFD(fd)
	if err != nil || st.kind != kindFile || st.size > maxManifest {
		return nil, fmt.Errorf("read %s: %w", name, errDamaged)
	}
	data := make([]byte, st.size)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	m, err := decode(data)
	if err != nil || m.Slot != slot {
		return nil, fmt.Errorf("read %s: %w", name, errors.Join(err, errDamaged))
	}
	return m, nil
}

// setAside moves a damaged manifest out of the way and remembers it.
func (s *Store) setAside(name string, cause error) {
	err := unix.Renameat(s.dirs.manifests, name, s.dirs.damaged, name+"-"+s.opts.Clock().UTC().Format("20060102-150405.000"))
	s.opts.Log.Warn("a snapshot is damaged and was moved to damaged/", "snapshot", name, "cause", cause, "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged[name] = cause.Error()
	s.table = slices.DeleteFunc(s.table, func(h header) bool { return h.id() == name })
}

// manifest returns a whole snapshot. It may be shared: nobody changes it.
func (s *Store) manifest(h header) (*manifest, error) {
	s.mu.Lock()
	m := s.cache.get(h.Seq)
	s.mu.Unlock()
	if m != nil {
		return m, nil
	}
	m, err := s.readManifest(h.Slot)
	if errors.Is(err, errDamaged) && s.current(h) {
		s.setAside(h.id(), err)
		return nil, fault.Wrap(err, fault.Unavailable, "snapshot %s is damaged and was moved to damaged/", h.id()).WithHint("use another snapshot")
	}
	if err != nil {
		return nil, err
	}
	if m.Seq != h.Seq {
		return nil, errReplaced
	}
	s.mu.Lock()
	s.cache.put(m)
	s.mu.Unlock()
	return m, nil
}

func (s *Store) current(h header) bool {
	return slices.ContainsFunc(s.headers(), func(o header) bool { return o.Seq == h.Seq })
}

// headers returns all snapshots, oldest first.
func (s *Store) headers() []header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.table)
}

// newest returns the last snapshot of an origin, of any if it is "".
func (s *Store) newest(origin string) (header, bool) {
	all := s.headers()
	for _, h := range slices.Backward(all) {
		if origin == "" || h.Origin == origin {
			return h, true
		}
	}
	return header{}, false
}

// lookup finds a snapshot by its id.
func (s *Store) lookup(id string) (header, error) {
	slot, err := parseID(id)
	if err != nil {
		return header{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.table {
		if h.Slot == slot {
			return h, nil
		}
	}
	if why := s.damaged[id]; why != "" {
		return header{}, fault.New(fault.Unavailable, "snapshot %s is damaged and was moved to damaged/: %s", id, why).WithHint("use another snapshot")
	}
	return header{}, fault.New(fault.NotFound, "there is no snapshot %s", id).WithHint("list the snapshots to see which there are")
}

// pin keeps a snapshot from being overwritten or deleted until it is called off.
func (s *Store) pin(h header) (unpin func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins[h.Slot]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.pins[h.Slot]--; s.pins[h.Slot] == 0 {
			delete(s.pins, h.Slot)
		}
	}
}

func (s *Store) pinned(slot int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pins[slot] > 0
}

// place says where the next snapshot of an origin goes, and which ones go for it. The first of them may be in that place.
func (s *Store) place(origin string) (slot int, drop []header, err error) {
	all := s.headers()
	var own []header
	used := map[int]bool{}
	for _, h := range all {
		used[h.Slot] = true
		if h.Origin == origin {
			own = append(own, h)
		}
	}
	from, size := s.pool(origin)
	if origin == api.OriginManual {
		if len(own) >= size {
			return 0, nil, fault.New(fault.LimitReached, "all %d manual snapshots are taken", size).
				WithHint("delete one (the oldest is %s %q) or compact some into one", own[0].id(), own[0].Name)
		}
		return s.free(used, from, size), nil, nil
	}
	for _, h := range own {
		if len(own)-len(drop) < size {
			break
		}
		if !s.pinned(h.Slot) {
			drop = append(drop, h)
		}
	}
	if len(own)-len(drop) >= size {
		return 0, nil, fault.New(fault.Conflict, "all %d snapshots of the ring are being read", size).WithHint("try again when that is done")
	}
	if len(drop) > 0 {
		return drop[0].Slot, drop, nil
	}
	return s.free(used, from, size), nil, nil
}

// pool is where the slots of an origin begin, and how many there are.
func (s *Store) pool(origin string) (from, size int) {
	switch origin {
	case api.OriginAuto:
		return 0, s.opts.AutoMax
	case api.OriginManual:
		return s.opts.AutoMax, s.opts.ManualMax
	}
	return s.opts.AutoMax + s.opts.ManualMax, revertMax
}

// free is the first free slot of a pool; where other limits once put others there, the first behind all pools.
func (s *Store) free(used map[int]bool, from, size int) int {
	for slot := from; slot < from+size; slot++ {
		if !used[slot] {
			return slot
		}
	}
	slot := s.opts.AutoMax + s.opts.ManualMax + revertMax
	for used[slot] {
		slot++
	}
	return slot
}

// manualLeft is how many manual snapshots there is room for.
func (s *Store) manualLeft() int {
	n := s.opts.ManualMax
	for _, h := range s.headers() {
		if h.Origin == api.OriginManual {
			n--
		}
	}
	return max(n, 0)
}
