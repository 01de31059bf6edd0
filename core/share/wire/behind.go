package wire

// Writes behind: the guest side may tell its kernel that a write is done before the host has answered it, as long as the host has lent
// it credit for the bytes under way. The host carries such writes out one after the other, before anything that was asked later, so that
// whoever reads the file, in the guest or on the host, after something else that came from the guest, finds them done.

// NotifyCredit is a notification of our own: how many bytes may be under way like that. It never reaches the kernel.
const NotifyCredit = 0x6362

// behindFlag marks a WRITE as one that the guest's kernel was told is done. It is a bit of fuse_write_in.write_flags that the kernel
// does not use.
const behindFlag = 1 << 31

// WriteHead is the size of a WRITE's fields before its data: fuse_write_in.
const WriteHead = 40

// Offsets in fuse_write_in.
const (
	writeSizeAt, writeFlagsAt, openFlagsAt = 16, 20, 32
)

// WriteIn are the fields of a WRITE that matter before it is carried out.
type WriteIn struct {
	Off  uint64
	Size uint32
	// Open are the flags with which the file was opened.
	Open uint32
	// Behind says that the guest's kernel was told that it is done.
	Behind bool
}

// ParseWrite reads them off the body of a WRITE that is whole.
func ParseWrite(body []byte) (w WriteIn, ok bool) {
	if len(body) < WriteHead {
		return w, false
	}
	w = WriteIn{
		Off: le.Uint64(body[8:]), Size: le.Uint32(body[writeSizeAt:]), Open: le.Uint32(body[openFlagsAt:]),
		Behind: Behind(le.Uint32(body[writeFlagsAt:])),
	}
	return w, int64(w.Size) == int64(len(body)-WriteHead)
}

// Behind reports whether the write_flags of a WRITE have the mark.
func Behind(flags uint32) bool { return flags&behindFlag != 0 }

// ParseWrote reads how much was written off the answer to a WRITE, with its head.
func ParseWrote(msg []byte) (uint32, bool) {
	if len(msg) < OutSize+4 {
		return 0, false
	}
	return le.Uint32(msg[OutSize:]), true
}

// MarkBehind marks the body of a WRITE.
func MarkBehind(body []byte) {
	le.PutUint32(body[writeFlagsAt:], le.Uint32(body[writeFlagsAt:])|behindFlag)
}

// AppendCredit appends a whole frame that lends so many bytes.
func AppendCredit(b []byte, bytes uint32) []byte {
	start := len(b)
	b = append(b, make([]byte, FrameHead+OutSize)...)
	b = le.AppendUint64(b, uint64(bytes))
	PutOut(b[start+FrameHead:], NotifyCredit, 0)
	PutHead(b[start:])
	return b
}

// ParseCredit decodes a notification that lends credit.
func ParseCredit(msg []byte) (uint32, error) {
	if len(msg) != OutSize+8 {
		return 0, ErrMessage
	}
	n := le.Uint64(msg[OutSize:])
	if n > MaxBehind {
		return 0, ErrMessage
	}
	return uint32(n), nil
}

// MaxBehind is the most that may be under way.
const MaxBehind = 4 << 20
