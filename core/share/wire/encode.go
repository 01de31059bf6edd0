package wire

import (
	"encoding/binary"
	"time"
)

var le = binary.LittleEndian

// Attr is a file's attributes as the guest sees them; the owner is always root.
type Attr struct {
	Ino, Size, Blocks   uint64
	Atime, Mtime, Ctime Time
	Mode, Nlink         uint32
	Blksize             uint32
}

// Time is seconds and nanoseconds.
type Time struct {
	Sec  int64
	Nsec uint32
}

// AttrSize, EntrySize and OpenSize are sizes of parts of answers.
const (
	AttrSize  = 88
	EntrySize = 40 + AttrSize
	OpenSize  = 16
)

// AppendAttr appends the kernel's fuse_attr.
func AppendAttr(b []byte, a Attr) []byte {
	for _, v := range []uint64{a.Ino, a.Size, a.Blocks, uint64(a.Atime.Sec), uint64(a.Mtime.Sec), uint64(a.Ctime.Sec)} { //nolint:gosec // times before 1970 keep their bits
		b = le.AppendUint64(b, v)
	}
	for _, v := range []uint32{a.Atime.Nsec, a.Mtime.Nsec, a.Ctime.Nsec, a.Mode, a.Nlink, 0, 0, 0, a.Blksize, 0} {
		b = le.AppendUint32(b, v)
	}
	return b
}

// Entry is the answer to everything that finds or makes a file.
type Entry struct {
	Node, Generation      uint64
	EntryValid, AttrValid time.Duration
	Attr                  Attr
}

// AppendEntry appends fuse_entry_out.
func AppendEntry(b []byte, e Entry) []byte {
	b = le.AppendUint64(b, e.Node)
	b = le.AppendUint64(b, e.Generation)
	b = le.AppendUint64(b, uint64(e.EntryValid/time.Second)) //nolint:gosec // never negative
	b = le.AppendUint64(b, uint64(e.AttrValid/time.Second))  //nolint:gosec // never negative
	b = le.AppendUint32(b, uint32(e.EntryValid%time.Second)) //nolint:gosec // less than a second
	b = le.AppendUint32(b, uint32(e.AttrValid%time.Second))  //nolint:gosec // less than a second
	return AppendAttr(b, e.Attr)
}

// AppendAttrOut appends fuse_attr_out.
func AppendAttrOut(b []byte, valid time.Duration, a Attr) []byte {
	b = le.AppendUint64(b, uint64(valid/time.Second)) //nolint:gosec // never negative
	b = le.AppendUint32(b, uint32(valid%time.Second)) //nolint:gosec // less than a second
	b = le.AppendUint32(b, 0)
	return AppendAttr(b, a)
}

// AppendOpen appends fuse_open_out.
func AppendOpen(b []byte, handle uint64, flags uint32) []byte {
	b = le.AppendUint64(b, handle)
	b = le.AppendUint32(b, flags)
	return le.AppendUint32(b, 0)
}

// AppendU32 appends a number, and zeros to fill 8 bytes: fuse_write_out and fuse_getxattr_out.
func AppendU32(b []byte, v uint32) []byte {
	return le.AppendUint32(le.AppendUint32(b, v), 0)
}

// AppendU64 appends a number: fuse_lseek_out.
func AppendU64(b []byte, v uint64) []byte { return le.AppendUint64(b, v) }

// Statfs is the answer to STATFS.
type Statfs struct {
	Blocks, Bfree, Bavail, Files, Ffree uint64
	Bsize                               uint32
}

// AppendStatfs appends fuse_kstatfs.
func AppendStatfs(b []byte, s Statfs) []byte {
	for _, v := range []uint64{s.Blocks, s.Bfree, s.Bavail, s.Files, s.Ffree} {
		b = le.AppendUint64(b, v)
	}
	for _, v := range []uint32{s.Bsize, MaxName, s.Bsize, 0, 0, 0, 0, 0, 0, 0} {
		b = le.AppendUint32(b, v)
	}
	return b
}

// Dirent is an entry of a directory.
type Dirent struct {
	Ino, Next uint64
	Type      uint32
	Name      string
}

// DirentSize is the size of an entry of a name of n bytes, padded.
func DirentSize(n int) int { return (24 + n + 7) &^ 7 }

// AppendDirent appends fuse_dirent, padded.
func AppendDirent(b []byte, d Dirent) []byte {
	b = le.AppendUint64(b, d.Ino)
	b = le.AppendUint64(b, d.Next)
	b = le.AppendUint32(b, uint32(len(d.Name))) //nolint:gosec // a name of the host's file system
	b = le.AppendUint32(b, d.Type)
	b = append(b, d.Name...)
	for range DirentSize(len(d.Name)) - 24 - len(d.Name) {
		b = append(b, 0)
	}
	return b
}

// Init is what INIT negotiates.
type Init struct {
	Major, Minor, Readahead, Flags uint32
	// Background is how many requests that nobody waits for the kernel has under way at most.
	Background uint16
}

// ParseInit decodes INIT.
func ParseInit(body []byte) (Init, error) {
	r := NewBody(body)
	in := Init{Major: r.U32(), Minor: r.U32(), Readahead: r.U32(), Flags: r.U32()}
	return in, r.Err() // what newer kernels add is not used
}

// AppendInit appends fuse_init_out.
func AppendInit(b []byte, i Init) []byte {
	for _, v := range []uint32{i.Major, i.Minor, i.Readahead, i.Flags} {
		b = le.AppendUint32(b, v)
	}
	b = le.AppendUint16(b, i.Background)
	b = le.AppendUint16(b, i.Background*3/4)
	b = le.AppendUint32(b, MaxData)
	b = le.AppendUint32(b, 1)                // times are exact to the nanosecond
	b = le.AppendUint16(b, MaxData/4096)     // pages of one request
	return append(b, make([]byte, 64-30)...) // no DAX mapping, no further flags
}

// PutOut writes the header of an answer into the first OutSize bytes of msg. A negative number is an error, a positive
// one with unique 0 a notification.
func PutOut(msg []byte, code int32, unique uint64) {
	le.PutUint32(msg, uint32(len(msg))) //nolint:gosec // a message is at most MaxMessage
	le.PutUint32(msg[4:], uint32(code)) //nolint:gosec // its bits
	le.PutUint64(msg[8:], unique)
}

// ParseOut decodes the header of an answer.
func ParseOut(msg []byte) (code int32, unique uint64, err error) {
	if len(msg) < OutSize || int(le.Uint32(msg)) != len(msg) {
		return 0, 0, ErrMessage
	}
	return int32(le.Uint32(msg[4:])), le.Uint64(msg[8:]), nil //nolint:gosec // its bits
}

// AppendInvalInode appends a whole notification: attributes of a node, and its data unless attrOnly, are to be read anew.
func AppendInvalInode(b []byte, node uint64, attrOnly bool) []byte {
	start := len(b)
	b = append(b, make([]byte, OutSize)...)
	b = le.AppendUint64(b, node)
	off := uint64(0)
	if attrOnly {
		off = ^uint64(0)
	}
	b = le.AppendUint64(b, off)
	b = le.AppendUint64(b, 0)
	PutOut(b[start:], NotifyInvalInode, 0)
	return b
}

// AppendInvalEntry appends a whole notification: a name in a directory is to be looked up anew.
func AppendInvalEntry(b []byte, parent uint64, name string) []byte {
	start := len(b)
	b = append(b, make([]byte, OutSize)...)
	b = le.AppendUint64(b, parent)
	b = le.AppendUint32(b, uint32(len(name))) //nolint:gosec // at most MaxName
	b = le.AppendUint32(b, 0)
	b = append(append(b, name...), 0)
	PutOut(b[start:], NotifyInvalEntry, 0)
	return b
}

// AppendRequest appends a request of ours: the guest side's own, and tests' ones.
func AppendRequest(b []byte, op Op, unique, node uint64, body []byte) []byte {
	b = le.AppendUint32(b, uint32(InSize+len(body))) //nolint:gosec // a message is at most MaxMessage
	b = le.AppendUint32(b, uint32(op))
	b = le.AppendUint64(b, unique)
	b = le.AppendUint64(b, node)
	b = append(b, make([]byte, 16)...)
	return append(b, body...)
}
