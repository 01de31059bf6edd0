package wire

// NotifyHint is a notification of our own: what the host says of a directory together with an answer, so that the guest side can
// answer what its kernel asks next. It never reaches the kernel.
const NotifyHint = 0x6361

// Hint says how a directory is after a request was carried out.
type Hint struct {
	// Unique is the request's.
	Unique, Node uint64
	// Empty says that the directory is new and has nothing in it.
	Empty bool
	// Attr is an answer to GETATTR; a new directory has none.
	Attr []byte
}

const (
	hintHead = OutSize + 24
	// AttrOutSize is the size of an answer to GETATTR.
	AttrOutSize = 16 + AttrSize
)

// AppendHint appends a whole frame.
func AppendHint(b []byte, h Hint) []byte {
	start := len(b)
	b = append(b, make([]byte, FrameHead+OutSize)...)
	b = le.AppendUint64(b, h.Unique)
	b = le.AppendUint64(b, h.Node)
	empty := uint64(0)
	if h.Empty {
		empty = 1
	}
	b = le.AppendUint64(b, empty)
	b = append(b, h.Attr...)
	PutOut(b[start+FrameHead:], NotifyHint, 0)
	PutHead(b[start:])
	return b
}

// ParseHint decodes a notification that is a hint. What it returns is valid as long as msg.
func ParseHint(msg []byte) (Hint, error) {
	if len(msg) != hintHead && len(msg) != hintHead+AttrOutSize {
		return Hint{}, ErrMessage
	}
	return Hint{
		Unique: le.Uint64(msg[OutSize:]), Node: le.Uint64(msg[OutSize+8:]), Empty: le.Uint64(msg[OutSize+16:]) == 1, Attr: msg[hintHead:],
	}, nil
}

// ParseInval decodes a notification that something is to be read anew: a node, or a name in it.
func ParseInval(code int32, msg []byte) (node uint64, name string, err error) {
	const head = OutSize + 16
	if len(msg) < head {
		return 0, "", ErrMessage
	}
	node = le.Uint64(msg[OutSize:])
	if code != NotifyInvalEntry {
		return node, "", nil
	}
	n := uint64(le.Uint32(msg[OutSize+8:]))
	if n > MaxName || uint64(len(msg)) < head+n {
		return 0, "", ErrMessage
	}
	return node, string(msg[head : head+n]), nil
}
