//go:build linux

package share

import (
	"bytes"
	"crypto/rand"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/share/wire"
)

// Go's runtime asks the kernel to poll each file that it opens, in a way that its scheduler does not know may block. With
// FUSE it does block, until this very process has relayed the question: it could stand still for good. Once a kernel has
// heard that POLL is not implemented it asks no more, so the first question is asked here, of a file that only this
// mount's first moments know.

const (
	opPoll   wire.Op = 40
	pollNode         = ^uint64(0)
)

// pollFile answers for that file.
type pollFile struct{ name string }

func newPollFile() *pollFile { return &pollFile{name: ".capsem-poll-" + rand.Text()} }

// unpoll has the kernel ask. The calls are such as the scheduler knows to block.
func (m *Mount) unpoll() error {
	fd, err := unix.Open(m.opts.Dir+"/"+m.poll.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // a descriptor
	return err
}

// answer returns what the kernel is to be told, if a request is about the file; nil and true is nothing.
func (p *pollFile) answer(head wire.Header, body []byte) ([]byte, bool) {
	named := head.Op == wire.OpLookup && head.Node == wire.RootID && bytes.Equal(bytes.TrimSuffix(body, []byte{0}), []byte(p.name))
	if head.Op != opPoll && head.Node != pollNode && !named {
		return nil, false
	}
	out := make([]byte, wire.OutSize, 256)
	attr := wire.Attr{Ino: pollNode, Mode: unix.S_IFREG | 0o400, Nlink: 1, Blksize: 4096}
	code := int32(0)
	switch head.Op {
	case wire.OpForget, wire.OpBatchForget, wire.OpInterrupt:
		return nil, true
	case wire.OpLookup:
		out = wire.AppendEntry(out, wire.Entry{Node: pollNode, AttrValid: time.Second, Attr: attr})
	case wire.OpGetattr:
		out = wire.AppendAttrOut(out, time.Second, attr)
	case wire.OpOpen:
		out = wire.AppendOpen(out, 0, 0)
	case wire.OpRelease, wire.OpFlush:
	default:
		code = -int32(unix.ENOSYS)
	}
	wire.PutOut(out, code, head.Unique)
	return out, true
}
