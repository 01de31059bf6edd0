package qemu

import (
	"bytes"
	"io"
	"os"
	"sync"

	"capsem/core/hypervisor"
)

// tailBytes is how much of the end of a text is kept for error messages.
const tailBytes = 8 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p[max(0, len(p)-tailBytes):]...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}

// drain copies the console into the log, up to hypervisor.ConsoleLimit, and goes on reading afterwards: a guest that
// floods its console must neither fill the disk nor be stopped by it.
func drain(from io.Reader, log *os.File, last *tail) {
	left := hypervisor.ConsoleLimit
	if log != nil {
		if info, err := log.Stat(); err == nil {
			left -= int(min(info.Size(), hypervisor.ConsoleLimit))
		}
	}
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		_, _ = last.Write(buf[:n])
		if part := min(n, left); part > 0 && log != nil {
			left -= part
			if left == 0 {
				part = copy(buf, "\n[the console's log is full; the rest is dropped]\n")
			}
			if _, werr := log.Write(buf[:part]); werr != nil {
				left = 0
			}
		}
		if err != nil {
			return
		}
	}
}
