//go:build linux

package share

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

const (
	// maxDirs bounds the directories of which something is known, maxNames the names in one that began empty.
	maxDirs, maxNames = 512, 4096
)

// known is what the guest side can say of directories without asking the host. Each time a name is made or removed the kernel forgets
// the directory's attributes, and asks for them before the next; and it looks up each name before it makes it. The host says with its
// answers how the directory is then, and which directory is new and empty; that holds until the guest changes it, the host says that it
// has changed, or the stream ends.
type known struct {
	mu   sync.Mutex
	dirs map[uint64]*dir
	// answered counts the requests that the host was not asked.
	answered uint64
}

type dir struct {
	// changes counts what the kernel has asked to do in it.
	changes uint64
	// attr is the answer to the next GETATTR, nil if it is not known.
	attr []byte
	// began says that it began empty, and names are all that may have been made in it since.
	began bool
	names map[string]struct{}
}

// change is one that was asked for in a directory: only what the host says of the last one counts.
type change struct {
	dir *dir
	at  uint64
}

func newKnown() *known { return &known{dirs: map[uint64]*dir{}} }

// ask looks at a request. It returns the answer, or what the request changes.
func (k *known) ask(head wire.Header, body []byte) (answer []byte, changes [2]change) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch head.Op {
	case wire.OpLookup:
		return k.absent(head, body), changes
	case wire.OpGetattr:
		return k.attributes(head, body), changes
	case wire.OpForget:
		delete(k.dirs, head.Node)
		return nil, changes
	case wire.OpBatchForget:
		r := wire.NewBody(body)
		count := int(r.U32())
		r.Skip(4)
		for range min(count, r.Left()/16) {
			delete(k.dirs, r.U64())
			r.Skip(8)
		}
		return nil, changes
	case wire.OpMkdir, wire.OpMknod:
		changes[0] = k.changed(head.Node, named(body, 8))
	case wire.OpCreate:
		changes[0] = k.changed(head.Node, named(body, 16))
	case wire.OpSymlink, wire.OpUnlink, wire.OpRmdir:
		changes[0] = k.changed(head.Node, named(body, 0))
	case wire.OpLink:
		changes[0] = k.changed(head.Node, named(body, 8))
	case wire.OpRename, wire.OpRename2:
		fixed := 8
		if head.Op == wire.OpRename2 {
			fixed = 16
		}
		if len(body) < fixed {
			return nil, changes
		}
		from := named(body, fixed)
		changes[0] = k.changed(head.Node, from)
		changes[1] = k.changed(binary.LittleEndian.Uint64(body), named(body, fixed+len(from)+1))
	case wire.OpGetxattr, wire.OpListxattr, wire.OpStatfs:
	default:
		if d := k.dirs[head.Node]; d != nil {
			d.changes++
			d.attr = nil
		}
	}
	return nil, changes
}

// named is the name at a place in a request, "" if there is none.
func named(body []byte, at int) string {
	if at > len(body) {
		return ""
	}
	r := wire.NewBody(body[at:])
	return r.Text()
}

// changed notes that a name in a directory is made or removed.
func (k *known) changed(node uint64, name string) change {
	d := k.dirs[node]
	if d == nil {
		d = k.add(node)
	}
	d.changes++
	d.attr = nil
	d.add(name)
	return change{d, d.changes}
}

func (k *known) add(node uint64) *dir {
	for old := range k.dirs { // any of them: this only costs a question more
		if len(k.dirs) < maxDirs {
			break
		}
		delete(k.dirs, old)
	}
	d := &dir{}
	k.dirs[node] = d
	return d
}

// add notes a name that may exist from now on.
func (d *dir) add(name string) {
	if !d.began {
		return
	}
	d.names[name] = struct{}{}
	if len(d.names) > maxNames {
		d.began, d.names = false, nil
	}
}

func (k *known) absent(head wire.Header, body []byte) []byte {
	d := k.dirs[head.Node]
	if d == nil || !d.began {
		return nil
	}
	name := named(body, 0)
	if _, may := d.names[name]; may || wire.CheckName(name) != nil {
		return nil
	}
	k.answered++
	out := make([]byte, wire.OutSize)
	wire.PutOut(out, -int32(unix.ENOENT), head.Unique)
	return out
}

func (k *known) attributes(head wire.Header, body []byte) []byte {
	d := k.dirs[head.Node]
	if d == nil || d.attr == nil || len(body) < 4 || binary.LittleEndian.Uint32(body)&wire.GetattrFh != 0 {
		return nil
	}
	k.answered++
	out := append(make([]byte, wire.OutSize, wire.OutSize+wire.AttrOutSize), d.attr...)
	wire.PutOut(out, 0, head.Unique)
	return out
}

// hint takes what the host says with the answer to a request, which changed what.
func (k *known) hint(h wire.Hint, changes [2]change) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h.Empty {
		d := k.add(h.Node)
		d.began, d.names = true, map[string]struct{}{}
		return
	}
	d := k.dirs[h.Node]
	for _, c := range changes {
		if d != nil && c.dir == d && c.at == d.changes && len(h.Attr) == wire.AttrOutSize {
			d.attr = append([]byte(nil), h.Attr...)
		}
	}
}

// stale heeds what the host tells the kernel.
func (k *known) stale(node uint64, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.dirs[node]
	if d == nil {
		return
	}
	d.changes++
	d.attr = nil
	if name == "" {
		d.began, d.names = false, nil
		return
	}
	d.add(name)
}

// forget is for a stream that has ended: what the host would have said is lost.
func (k *known) forget() {
	k.mu.Lock()
	k.dirs = map[uint64]*dir{}
	k.mu.Unlock()
}
