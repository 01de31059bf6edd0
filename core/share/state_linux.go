package share

import (
	"context"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

const (
	stateVersion = 1
	// maxState bounds what Save makes and New takes: what core/checkpoint keeps of all of a VM.
	maxState = 256 << 20
)

// state is what Save returns, in CBOR. Names are bytes.
type state struct {
	Version int         `cbor:"version"`
	Nonce   []byte      `cbor:"nonce"`
	Known   bool        `cbor:"known"`
	Init    *wire.Init  `cbor:"init"`
	Forgets uint64      `cbor:"forgets"`
	Replies []reply     `cbor:"replies"`
	NextID  uint64      `cbor:"next_node"`
	NextFH  uint64      `cbor:"next_handle"`
	Nodes   []nodeState `cbor:"nodes"`
	Handles []handState `cbor:"handles"`
	Absent  []linkState `cbor:"absent"`
}

// nodeState is a node, as an array to be short.
type nodeState struct {
	_       struct{} `cbor:",toarray"`
	ID, Gen uint64
	Dev     uint64
	Ino     uint64
	Birth   int64
	Kind    uint32
	Lookups uint64
	Seen    []uint64
	Links   []linkState
}

type linkState struct {
	_      struct{} `cbor:",toarray"`
	Parent uint64
	Name   []byte
}

type handState struct {
	_        struct{} `cbor:",toarray"`
	ID, Node uint64
	Flags    uint32
	Dir      bool
	PID      uint32
}

// Save returns what a server needs to go on with the same guest: its nodes by path, its open files, and the last answers.
// The guest's memory must be saved at the same time; requests under way are finished first, unless ctx is done before.
func (s *Server) Save(ctx context.Context) ([]byte, error) {
	if s.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if err := s.finishAll(ctx); err != nil {
		return nil, fmt.Errorf("save share: %w", err)
	}
	defer s.gate.Unlock()
	st, err := s.saved(ctx)
	if err != nil {
		return nil, fmt.Errorf("save share: %w", err)
	}
	out, err := cbor.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("save share: %w", err)
	}
	if len(out) > maxState {
		return nil, fmt.Errorf("save share: %w: %d bytes, more than %d: the guest has too many files in use", ErrState, len(out), maxState)
	}
	return out, nil
}

// finishAll takes the gate for writing: no request is under way from then on.
func (s *Server) finishAll(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.gate.TryLock() {
		return nil
	}
	got := make(chan struct{})
	s.waiting.Go(func() { // Close waits for it; the requests that it waits for end with their files
		s.gate.Lock()
		select {
		case got <- struct{}{}:
		case <-ctx.Done():
			s.gate.Unlock()
		}
	})
	select {
	case <-got:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// saved is what Save returns. No request is under way.
func (s *Server) saved(ctx context.Context) (state, error) {
	st := state{
		Version: stateVersion, Nonce: s.mount.nonce[:], Known: s.mount.known, Init: s.mount.init, Forgets: s.mount.forgets,
		Replies: s.mount.replies.oldest(),
	}
	s.handles.mu.Lock()
	defer s.handles.mu.Unlock()
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	st.NextID = s.table.next
	for _, n := range s.table.byID {
		if ctx.Err() != nil {
			return st, ctx.Err()
		}
		st.Nodes = append(st.Nodes, s.table.save(n))
	}
	for _, at := range s.table.absent.queue {
		if s.table.absent.in[at] && s.table.byID[at.parent.id] == at.parent {
			st.Absent = append(st.Absent, linkState{Parent: at.parent.id, Name: []byte(at.name)})
		}
	}
	st.NextFH = s.handles.next
	for _, h := range s.handles.byID {
		if s.table.byID[h.node.id] != h.node { // it was forgotten while it was opened
			continue
		}
		st.Handles = append(st.Handles, handState{ID: h.id, Node: h.node.id, Flags: uint32(h.flags), Dir: h.dir, PID: h.pid}) //nolint:gosec // keptFlags
	}
	return st, nil
}

// save is called under the table's lock, with no request under way.
func (t *table) save(n *node) nodeState {
	out := nodeState{
		ID: n.id, Gen: n.generation, Dev: n.key.dev, Ino: n.key.ino, Birth: n.key.btime, Kind: n.kind, Lookups: n.lookups,
		Seen: []uint64{uint64(n.seen.mtime), uint64(n.seen.ctime), n.seen.size, uint64(n.seen.mode), uint64(n.seen.nlink)}, //nolint:gosec // bits
	}
	for _, at := range n.links {
		if t.byID[at.parent.id] != at.parent { // it was forgotten while the name was looked up
			continue
		}
		out.Links = append(out.Links, linkState{Parent: at.parent.id, Name: []byte(at.name)})
	}
	return out
}

func (s *Server) decodeState(b []byte) (state, error) {
	var st state
	if len(b) > maxState {
		return st, fmt.Errorf("%w: %d bytes", ErrState, len(b))
	}
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 8, MaxArrayElements: max(16, s.limits.Nodes, s.limits.Handles, maxReplies, maxAbsent) + 1,
		MaxMapPairs: 64, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
	}.DecMode()
	if err != nil {
		return st, err
	}
	if err := mode.Unmarshal(b, &st); err != nil {
		return st, fmt.Errorf("%w: %w", ErrState, err)
	}
	if st.Version != stateVersion || len(st.Nonce) != wire.MountSize || len(st.Replies) > maxReplies || len(st.Absent) > maxAbsent || len(st.Handles) > s.handles.limit {
		return st, fmt.Errorf("%w: version %d", ErrState, st.Version)
	}
	return st, nil
}

// restore makes nodes and handles of saved state. What is gone on the host stays known to the guest, and is stale.
func (s *Server) restore(b []byte) error {
	st, err := s.decodeState(b)
	if err != nil {
		return err
	}
	if err := s.restoreNodes(st); err != nil {
		return err
	}
	if s.config.Copied {
		s.adopt()
	}
	for _, h := range st.Handles {
		if err := s.restoreHandle(h); err != nil {
			return err
		}
	}
	s.watcher.sweepNow = true
	s.handles.next = max(s.handles.next, st.NextFH)
	copy(s.mount.nonce[:], st.Nonce)
	s.mount.known, s.mount.init, s.mount.forgets = st.Known, st.Init, st.Forgets
	for _, r := range st.Replies {
		if len(r.Message) < wire.OutSize {
			return fmt.Errorf("%w: an answer of %d bytes", ErrState, len(r.Message))
		}
		s.mount.replies.add(r.Unique, r.Message)
	}
	return nil
}

func (s *Server) restoreNodes(st state) error {
	t := s.table
	root := t.byID[wire.RootID]
	oldDev := root.key.dev
	for _, n := range st.Nodes {
		if n.ID == wire.RootID {
			oldDev = n.Dev
		}
	}
	for _, in := range st.Nodes {
		if in.ID == wire.RootID {
			continue
		}
		if in.ID == 0 || in.ID >= st.NextID || t.byID[in.ID] != nil || len(in.Seen) != 5 || !shareable(in.Kind) {
			return fmt.Errorf("%w: node %d", ErrState, in.ID)
		}
		key := identity{in.Dev, in.Ino, in.Birth}
		if key.dev == oldDev { // a file system may have another number after the host was restarted
			key.dev = root.key.dev
		}
		n := &node{id: in.ID, generation: in.Gen, key: key, kind: in.Kind, lookups: in.Lookups, charged: unknown, seen: version{
			int64(in.Seen[0]), int64(in.Seen[1]), in.Seen[2], uint32(in.Seen[3]), uint32(in.Seen[4]), //nolint:gosec // bits
		}}
		t.byID[n.id], t.byKey[key] = n, n
	}
	t.next = max(t.next, st.NextID)
	for _, in := range st.Nodes {
		for _, at := range in.Links {
			n, parent := t.byID[in.ID], t.byID[at.Parent]
			if n == nil || parent == nil || parent.kind != unix.S_IFDIR || wire.CheckName(string(at.Name)) != nil {
				return fmt.Errorf("%w: a name of node %d", ErrState, in.ID)
			}
			t.link(n, parent, string(at.Name))
		}
	}
	for _, at := range st.Absent {
		parent := t.byID[at.Parent]
		if parent == nil || parent.kind != unix.S_IFDIR || wire.CheckName(string(at.Name)) != nil {
			return fmt.Errorf("%w: a name in node %d", ErrState, at.Parent)
		}
		t.absent.add(link{parent, string(at.Name)})
	}
	return nil
}

// adopt takes what is at each node's path now for the node's file, if it is of its kind.
func (s *Server) adopt() {
	for _, n := range s.table.all() {
		for _, path := range s.table.paths(n) {
			if path == "" {
				break
			}
			f, err := openBeneath(s.rootFD, path, unix.O_PATH|unix.O_NOFOLLOW)
			if err != nil {
				continue
			}
			st, err := statFD(f.fd)
			f.close()
			if err != nil || st.kind() != n.kind {
				continue
			}
			if s.table.byKey[n.key] == n {
				delete(s.table.byKey, n.key)
			}
			n.key = st.identity()
			s.table.byKey[n.key] = n
			break
		}
	}
}

func (s *Server) restoreHandle(in handState) error {
	n := s.table.byID[in.Node]
	if n == nil || in.ID == 0 || s.handles.byID[in.ID] != nil || in.Dir != (n.kind == unix.S_IFDIR) {
		return fmt.Errorf("%w: handle %d", ErrState, in.ID)
	}
	h := &handle{id: in.ID, node: n, flags: int(in.Flags) & keptFlags, dir: in.Dir, pid: in.PID, f: file{fd: -1}, pos: -1}
	s.handles.byID[h.id] = h
	n.open = append(n.open, h)
	if s.config.ReadOnly && h.writable() {
		return nil // stale
	}
	at, st, err := s.place(n)
	if err != nil {
		return nil //nolint:nilerr // gone: the guest is told ESTALE
	}
	defer at.close()
	flags := h.flags &^ unix.O_APPEND
	if h.dir {
		flags = unix.O_RDONLY | unix.O_DIRECTORY
	}
	if f, _, err := s.reopen(at, &st, flags); err == nil {
		h.f = f
	} else {
		s.log.Warn("a file that the guest had open cannot be opened again", "path", s.nameOf(n), "error", err)
	}
	return nil
}
