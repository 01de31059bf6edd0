//go:build linux

package terminal

import (
	"context"
	"io"
	"sync"

	"capsem/core/guest/frames"
	"capsem/core/proto"
)

// maxBehind is how many bytes a viewer may be behind before the shell is held up for it.
const maxBehind = 256 << 10

// viewer is one stream that looks at a session. The session appends to its buffer, a goroutine of its own sends it.
type viewer struct {
	size proto.WindowSize

	mu   sync.Mutex
	buf  []byte
	exit *proto.ExitStatus
	// more tells the sender about new bytes, room the session about free space; gone is closed when the viewer leaves.
	more, room chan struct{}
	gone       chan struct{}
	leave      sync.Once
}

func newViewer(size proto.WindowSize) *viewer {
	return &viewer{size: size, more: make(chan struct{}, 1), room: make(chan struct{}, 1), gone: make(chan struct{})}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (v *viewer) push(data []byte) {
	v.mu.Lock()
	v.buf = append(v.buf, data...)
	v.mu.Unlock()
	poke(v.more)
}

func (v *viewer) finish(status proto.ExitStatus) {
	v.mu.Lock()
	v.exit = &status
	v.mu.Unlock()
	poke(v.more)
}

func (v *viewer) behind() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.buf) > maxBehind
}

// drop makes the viewer leave.
func (v *viewer) drop() { v.leave.Do(func() { close(v.gone) }) }

// swap takes all that is buffered and gives spare as the next buffer.
func (v *viewer) swap(spare []byte) ([]byte, *proto.ExitStatus) {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := v.buf
	v.buf = spare[:0]
	poke(v.room)
	return out, v.exit
}

// send passes on what the session shows until the viewer leaves or the session has ended.
func (v *viewer) send(ctx context.Context, st io.ReadWriteCloser) {
	out := frames.NewWriter(st)
	var spare []byte
	for {
		data, exit := v.swap(spare)
		for rest := data; len(rest) > 0; {
			n := min(len(rest), proto.MaxChunk)
			if out.Send(proto.KindStdout, rest[:n]) != nil {
				v.drop()
				return
			}
			rest = rest[n:]
		}
		spare = data
		if exit != nil && len(data) == 0 {
			_ = out.SendJSON(proto.KindExit, exit) // the viewer is gone then
			frames.Leave(st)
			return
		}
		if len(data) > 0 {
			continue
		}
		select {
		case <-v.more:
		case <-v.gone:
			return
		case <-ctx.Done():
			return
		}
	}
}
