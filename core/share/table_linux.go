package share

import (
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

const (
	// maxLinks is how many names of one file are remembered; more hard links than that are found by looking them up.
	maxLinks = 8
	// maxDepth and maxPath bound the path of a node, in directories and in bytes.
	maxDepth = 2048
	maxPath  = 128 << 10
)

// node is a file that the guest's kernel knows. What is above mu belongs to the table's lock.
type node struct {
	id, generation uint64
	key            identity
	kind           uint32
	lookups        uint64
	kids           int
	links          []link
	open           []*handle
	watch          int32 // inotify's descriptor; 0 is none

	// mu is held while the file is changed and what came of it is noted.
	mu sync.Mutex
	// seen is the file as of the last change that the guest knows of.
	seen version
	// charged is what the file counts for in the quota's sum.
	charged int64
}

type link struct {
	parent *node
	name   string
}

// table is the nodes by number, by file and by name. A node stays while the guest's kernel, a child or a handle needs it.
type table struct {
	mu    sync.Mutex
	byID  map[uint64]*node
	byKey map[identity]*node
	names map[link]*node
	next  uint64
	limit int
	// absent are names that do not exist, as the guest was told.
	absent absences
	// gone is told of each node that is one no more. It is called under the lock.
	gone func(*node)
}

func newTable(limit int, root stat) *table {
	n := &node{id: wire.RootID, key: root.identity(), kind: unix.S_IFDIR, lookups: 1, seen: seenOf(&root), charged: root.cost()}
	return &table{
		byID: map[uint64]*node{n.id: n}, byKey: map[identity]*node{n.key: n}, names: map[link]*node{},
		next: wire.RootID + 1, limit: limit, gone: func(*node) {},
	}
}

// seenOf is the version that is compared: of a directory only the mode, as everything in it changes the rest.
func seenOf(st *stat) version {
	if st.isDir() {
		return version{mode: uint32(st.Mode)}
	}
	return st.version()
}

// get finds the node that the guest names.
func (t *table) get(id uint64) (*node, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || n.lookups == 0 {
		return nil, unix.ESTALE
	}
	return n, nil
}

// room says beforehand whether another node is allowed, so that nothing is made in vain.
func (t *table) room() error {
	if t.size() >= t.limit {
		return unix.ENFILE
	}
	return nil
}

func (t *table) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}

// find returns the node that a name is known to be, or nil.
func (t *table) find(parent *node, name string) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.names[link{parent, name}]
}

// attach returns the node of a file found or made at a name, counting one lookup. With parent nil the file has no name.
func (t *table) attach(parent *node, name string, st *stat) (n *node, fresh bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n = t.byKey[st.identity()]
	if n != nil && n.kind != st.kind() { // a file system without birth times has used the number again
		delete(t.byKey, n.key)
		n = nil
	}
	if n == nil {
		if len(t.byID) >= t.limit {
			return nil, false, unix.ENFILE
		}
		n = &node{id: t.next, key: st.identity(), kind: st.kind(), seen: seenOf(st), charged: st.cost()}
		t.next++
		t.byID[n.id], t.byKey[n.key] = n, n
		fresh = true
	}
	n.lookups++
	if parent != nil {
		t.link(n, parent, name)
	}
	return n, fresh, nil
}

// link notes a name of n. A directory has one name.
func (t *table) link(n, parent *node, name string) {
	at := link{parent, name}
	delete(t.absent.in, at)
	old := t.names[at]
	if old == n || n.id == wire.RootID {
		return
	}
	if old != nil {
		t.unlink(old, at)
	}
	for len(n.links) >= maxLinks || (n.kind == unix.S_IFDIR && len(n.links) > 0) {
		t.unlink(n, n.links[0])
	}
	n.links = append(n.links, at)
	t.names[at] = n
	parent.kids++
}

// unlink drops a name of n.
func (t *table) unlink(n *node, at link) {
	i := slices.Index(n.links, at)
	if i < 0 {
		return
	}
	n.links = slices.Delete(n.links, i, i+1)
	delete(t.names, at)
	at.parent.kids--
	t.release(at.parent)
}

// release frees n, and then its parents, if nothing needs it.
func (t *table) release(n *node) {
	for n != nil && n.id != wire.RootID && n.lookups == 0 && n.kids == 0 && len(n.open) == 0 && t.byID[n.id] == n {
		delete(t.byID, n.id)
		if t.byKey[n.key] == n {
			delete(t.byKey, n.key)
		}
		t.gone(n)
		var up *node
		for i, at := range n.links {
			delete(t.names, at)
			at.parent.kids--
			if i == 0 {
				up = at.parent
			} else {
				t.release(at.parent)
			}
		}
		n.links = nil
		n = up
	}
}

// forget takes back lookups. Numbers that no honest kernel sends change nothing.
func (t *table) forget(id, lookups uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || id == wire.RootID {
		return
	}
	n.lookups -= min(n.lookups, lookups)
	t.release(n)
}

// drop forgets a name and returns the node it was.
func (t *table) drop(parent *node, name string) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.names[link{parent, name}]
	if n != nil {
		t.unlink(n, link{parent, name})
		t.release(n)
	}
	return n
}

// relink notes that a file that is known has (also) this name now.
func (t *table) relink(n, parent *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[n.id] == n && t.byID[parent.id] == parent {
		t.link(n, parent, name)
	}
}

// move follows a rename.
func (t *table) move(from, to link, exchange bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, over := t.names[from], t.names[to]
	if n == over && n != nil { // two names of one file: rename leaves both
		return
	}
	from.parent.kids++ // so that no parent goes in between
	to.parent.kids++
	defer func() {
		from.parent.kids--
		to.parent.kids--
		t.release(from.parent)
		t.release(to.parent)
	}()
	if over != nil {
		t.unlink(over, to)
	}
	if n != nil {
		t.unlink(n, from)
		t.link(n, to.parent, to.name)
	}
	if exchange && over != nil {
		t.link(over, from.parent, from.name)
	} else if over != nil {
		t.release(over)
	}
}

// named reports whether a name of n is known.
func (t *table) named(n *node) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(n.links) > 0
}

// paths returns the known paths of n, relative to the root; the root's is "".
func (t *table) paths(n *node) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.id == wire.RootID {
		return []string{""}
	}
	out := make([]string, 0, 1)
	for _, at := range n.links {
		if p, ok := pathOf(at); ok {
			out = append(out, p)
		}
	}
	return out
}

// pathOf walks up from a name. The host may have moved directories into each other since: a bound ends such a circle.
func pathOf(at link) (string, bool) {
	names, size := []string{at.name}, len(at.name)
	for p := at.parent; p.id != wire.RootID; p = p.links[0].parent {
		if len(p.links) == 0 {
			return "", false
		}
		names = append(names, p.links[0].name)
		if size += 1 + len(p.links[0].name); size > maxPath || len(names) > maxDepth {
			return "", false
		}
	}
	slices.Reverse(names)
	return strings.Join(names, "/"), true
}

// path is a path of n for events and logs.
func (t *table) path(parent *node, name string) string {
	up := t.paths(parent)
	switch {
	case len(up) == 0:
		return name
	case up[0] == "":
		return name
	case name == "":
		return up[0]
	}
	return up[0] + "/" + name
}

// all returns the nodes of one moment.
func (t *table) all() []*node {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*node, 0, len(t.byID))
	for _, n := range t.byID {
		out = append(out, n)
	}
	return out
}
