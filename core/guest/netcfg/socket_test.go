//go:build linux

package netcfg

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// reply makes one message of the kernel's.
func reply(kind uint16, seq uint32, body ...byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return append(b, body...)
}

func code(errno int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-errno)) }

func TestTheAnswerToARequestIsFound(t *testing.T) {
	t.Parallel()
	other := reply(unix.NLMSG_ERROR, 1, code(int32(unix.EPERM))...)
	for name, c := range map[string]struct {
		buf  []byte
		done bool
		err  error
	}{
		"done":             {reply(unix.NLMSG_ERROR, 7, code(0)...), true, nil},
		"refused":          {reply(unix.NLMSG_ERROR, 7, code(int32(unix.EEXIST))...), true, unix.EEXIST},
		"behind another's": {append(append([]byte{}, other...), reply(unix.NLMSG_ERROR, 7, code(0)...)...), true, nil},
		"another's":        {other, false, nil},
		"nothing":          {nil, false, nil},
		"cut off":          {reply(unix.NLMSG_ERROR, 7, code(0)...)[:18], true, unix.EBADMSG},
		"no code":          {reply(unix.NLMSG_ERROR, 7), true, unix.EBADMSG},
		"no length":        {make([]byte, 64), true, unix.EBADMSG},
	} {
		if done, err := verdict(c.buf, 7); done != c.done || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v", name, done, err)
		}
	}
}

func FuzzVerdict(f *testing.F) {
	f.Add(reply(unix.NLMSG_ERROR, 7, code(0)...), uint32(7))
	f.Fuzz(func(t *testing.T, buf []byte, seq uint32) {
		if done, err := verdict(buf, seq); err != nil && !done {
			t.Errorf("%v, but it goes on waiting", err)
		}
	})
}
