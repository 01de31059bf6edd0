package gitwire

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxFetch bounds what is read of a request for a pack.
const maxFetch = 1 << 20

// ReadFetch reads a request to git-upload-pack, of either protocol. have reports whether the client says that it has something already. raw is
// what was read; the rest follows. What is too long to be read whole counts as a clone.
func ReadFetch(src io.Reader) (have bool, raw []byte, err error) {
	r := NewReader(src, maxFetch)
	for {
		kind, data, err := r.Next()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, ErrTooMuch):
			return false, r.Raw(), nil
		case err != nil:
			return false, r.Raw(), err
		case kind == Data && strings.HasPrefix(string(data), "have "):
			return true, r.Raw(), nil
		}
	}
}

// maxFetched bounds an answer with trees.
const maxFetched = 64 << 20

// Wants is a request to git-upload-pack of protocol 2 for some commits with their trees: not what led to them, and, where the server knows how, no files.
func Wants(ids []string, noFiles bool) []byte {
	if noFiles {
		return wants(ids, 1, "blob:none")
	}
	return wants(ids, 1, "")
}

func wants(ids []string, depth int, filter string) []byte {
	b := AppendPacket(nil, "command=fetch\n")
	if len(ids) > 0 && len(ids[0]) == 64 {
		b = AppendPacket(b, "object-format=sha256\n")
	}
	b = AppendPacket(append(b, "0001"...), "no-progress\n")
	b = AppendPacket(b, fmt.Sprintf("deepen %d\n", depth))
	if filter != "" {
		b = AppendPacket(b, "filter "+filter+"\n")
	}
	for _, id := range ids {
		b = AppendPacket(b, "want "+id+"\n")
	}
	return AppendFlush(AppendPacket(b, "done\n"))
}

// ErrAnswer is an answer to a request for a pack without one.
var ErrAnswer = errors.New("the server gave no pack")

// ReadFetched takes in what a server answers to Wants.
func (o *Objects) ReadFetched(src io.Reader) error {
	a := &answer{src: io.LimitReader(src, maxFetched)}
	for { // what is said before the pack
		kind, data, err := a.packet()
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", ErrAnswer, unexpected(err))
		case kind == Data && string(data) == "packfile\n":
			if _, err := o.ReadObjects(a); err != nil {
				return err
			}
			return nil
		case kind == Data && strings.HasPrefix(string(data), "ERR "):
			return fmt.Errorf("%w: %.200q", ErrAnswer, data[4:])
		case kind == Flush:
			return ErrAnswer
		}
	}
}

// answer reads packets, and the pack that is in a side band of them.
type answer struct {
	src  io.Reader
	buf  [MaxPacket]byte
	rest []byte
	err  error
}

func (a *answer) packet() (Kind, []byte, error) {
	r := Reader{src: a.src, max: MaxPacket, raw: a.buf[:0]}
	return r.Next()
}

// Read reads the pack.
func (a *answer) Read(p []byte) (int, error) {
	for len(a.rest) == 0 && a.err == nil {
		kind, data, err := a.packet()
		switch {
		case err != nil:
			a.err = unexpected(err)
		case kind == Flush:
			a.err = io.EOF
		case kind != Data || len(data) == 0:
			a.err = ErrPacket
		case data[0] == 1:
			a.rest = data[1:]
		case data[0] == 3:
			a.err = fmt.Errorf("%w: %.200q", ErrAnswer, data[1:])
		}
	}
	if len(a.rest) == 0 {
		return 0, a.err
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}
