package snapshot

import (
	"math"
	"strings"
)

// reader takes entries apart. Its text stays in memory as long as one entry does, which shares it.
type reader struct {
	text string
	bad  bool
}

func (r *reader) take(n uint64) string {
	if n > uint64(len(r.text)) {
		r.bad, r.text = true, ""
		return ""
	}
	out := r.text[:n]
	r.text = r.text[n:]
	return out
}

func (r *reader) byte() byte {
	if s := r.take(1); s != "" {
		return s[0]
	}
	return 0
}

func (r *reader) uvarint() (out uint64) {
	for shift := 0; shift < 64; shift += 7 {
		b := r.byte()
		if shift == 63 && b > 1 {
			break
		}
		out |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return out
		}
	}
	r.bad = true
	return 0
}

// number is one of at most limit.
func (r *reader) number(limit uint64) uint64 {
	n := r.uvarint()
	if n > limit {
		r.bad = true
		return 0
	}
	return n
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	n := int64(u >> 1)
	if u&1 != 0 {
		return ^n
	}
	return n
}

func (r *reader) str(limit uint64) string { return r.take(r.number(limit)) }

func (r *reader) entry(e *entry) {
	e.kind, e.marks = kind(r.byte()), r.byte()
	e.path = r.str(maxPath)
	e.mode = uint32(r.number(modeBits))                                               //nolint:gosec // bounded
	e.uid, e.gid = uint32(r.number(math.MaxUint32)), uint32(r.number(math.MaxUint32)) //nolint:gosec // bounded
	e.ino, e.size = r.uvarint(), int64(r.number(math.MaxInt64))                       //nolint:gosec // bounded
	e.mtime, e.ctime = r.varint(), r.varint()
	switch e.kind {
	case kindFile:
		copy(e.hash[:], r.take(uint64(len(e.hash))))
	case kindSymlink:
		e.target = r.str(maxTarget)
		r.bad = r.bad || e.target == "" || strings.IndexByte(e.target, 0) >= 0
	case kindDir:
	default:
		r.bad = true
	}
	r.bad = r.bad || e.marks&^marks != 0
	r.attributes(e)
}

func (r *reader) attributes(e *entry) {
	left := uint64(maxXattrs)
	for range r.number(maxXattrs / 8) {
		x := xattr{r.str(min(maxName, left)), ""}
		x.value = r.str(left - uint64(len(x.name)))
		last := len(e.xattrs) - 1
		if r.bad = r.bad || !validXattr(x.name) || last >= 0 && e.xattrs[last].name >= x.name; r.bad {
			return
		}
		left -= uint64(len(x.name) + len(x.value))
		e.xattrs = append(e.xattrs, x)
	}
}

// validXattr reports whether a guest may have an attribute: all others mean something to the host's kernel.
func validXattr(name string) bool {
	return len(name) > len(xattrPrefix) && strings.HasPrefix(name, xattrPrefix) && strings.IndexByte(name, 0) < 0
}
