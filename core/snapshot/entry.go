package snapshot

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
)

// kind is what an entry of a workspace is.
type kind uint8

const (
	kindFile kind = 1 + iota
	kindDir
	kindSymlink
)

// Marks of an entry.
const (
	// markDoubt is a file that may change once more without its times showing it: it is read again next time.
	markDoubt uint8 = 1 << iota
	// markTorn is a file that changed each time while it was read.
	markTorn
	marks = markDoubt | markTorn
)

// hash names a content.
type hash [32]byte

func (h hash) String() string { return hex.EncodeToString(h[:]) }

// xattr is an extended attribute.
type xattr struct{ name, value string }

// entry is one file, directory or symlink of a workspace. Its path has no leading slash; the workspace itself has no entry.
type entry struct {
	path   string
	kind   kind
	marks  uint8
	mode   uint32
	uid    uint32
	gid    uint32
	ino    uint64
	size   int64
	mtime  int64
	ctime  int64
	hash   hash   // of a file
	target string // of a symlink
	xattrs []xattr
}

// same reports whether two entries hold the same. Times and owners do not count.
func (e *entry) same(o *entry) bool {
	return e.kind == o.kind && e.hash == o.hash && e.target == o.target && e.sameMeta(o)
}

// sameMeta reports whether mode and attributes are the same. The mode of a symlink means nothing.
func (e *entry) sameMeta(o *entry) bool {
	return (e.mode == o.mode || e.kind == kindSymlink) && slices.Equal(e.xattrs, o.xattrs)
}

// untouched reports whether a file is as it was when e was made, going by what the file system says of it.
func (e *entry) untouched(st *stat) bool {
	return e.marks == 0 && e.kind == st.kind && e.ino == st.ino && e.size == st.size && e.mtime == st.mtime && e.ctime == st.ctime
}

// treeOrder sorts paths so that what is below a directory follows it without a gap: the separator comes before any other byte.
func treeOrder(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if x, y := a[i], b[i]; x != y {
			if x == '/' {
				return -1
			}
			if y == '/' {
				return 1
			}
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// below reports whether a path is the given one or lies below it; everything lies below "".
func below(path, top string) bool {
	return top == "" || path == top || (len(path) > len(top) && path[len(top)] == '/' && strings.HasPrefix(path, top))
}

// parent is the directory of a path, "" at the top.
func parent(path string) string {
	return path[:max(strings.LastIndexByte(path, '/'), 0)]
}

// base is the last part of a path.
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// digest is the hash over what entries hold: two workspaces with the same contents, modes and names have the same.
func digest(entries []entry) hash {
	h := blake3.New()
	var buf []byte
	text := func(s string) {
		buf = append(binary.AppendUvarint(buf, uint64(len(s))), s...)
	}
	for i := range entries {
		e := &entries[i]
		buf = buf[:0]
		text(e.path)
		buf = append(buf, byte(e.kind))
		if e.kind != kindSymlink {
			buf = binary.LittleEndian.AppendUint32(buf, e.mode)
		}
		buf = append(buf, e.hash[:]...)
		text(e.target)
		buf = binary.AppendUvarint(buf, uint64(len(e.xattrs)))
		for _, x := range e.xattrs {
			text(x.name)
			text(x.value)
		}
		_, _ = h.Write(buf) // a hash takes everything
	}
	return sum(h)
}

func sum(h *blake3.Hasher) (out hash) {
	h.Sum(out[:0])
	return out
}
