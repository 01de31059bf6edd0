package pipe

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"capsem/core/mitm/flow"
)

const (
	// maxMemory bounds what all bodies of the process hold together. Without it a guest could have a thousand of them remember 8 MiB
	// each for a few bytes.
	maxMemory = 256 << 20
	// memoryStep is by how much at a time a decoder takes of it.
	memoryStep = 64 << 10
)

// inUse is what decoders hold.
var inUse atomic.Int64

// Busy is a body that would have to be decoded when there is no memory left for that.
func Busy() error {
	return &flow.Refusal{
		Status: http.StatusServiceUnavailable, Header: http.Header{"Content-Type": {"application/json"}, "X-Capsem-Rule": {busyRule}, "Retry-After": {"1"}},
		Body: []byte(`{"error":"refused: too many compressed bodies at once","rule":"` + busyRule + `"}`),
		Rule: busyRule, Reason: "too many compressed bodies at once",
	}
}

const busyRule = "capsem:busy"

// Memory is what one body has in memory, of what all may have. It may be used by many goroutines.
type Memory struct {
	mu    sync.Mutex
	held  int64
	freed bool
}

// Want has n bytes held in all.
func (m *Memory) Want(n int64) error {
	n = (n + memoryStep - 1) / memoryStep * memoryStep
	m.mu.Lock()
	defer m.mu.Unlock()
	if n <= m.held || m.freed {
		return nil
	}
	more := n - m.held
	if inUse.Add(more) > maxMemory {
		inUse.Add(-more)
		return Busy()
	}
	m.held = n
	return nil
}

// Free gives all back, for good.
func (m *Memory) Free() {
	m.mu.Lock()
	defer m.mu.Unlock()
	inUse.Add(-m.held)
	m.held, m.freed = 0, true
}

// Decoder undoes an encoding. What it has to remember counts as used until it has ended or is closed.
type Decoder struct {
	io.Reader
	window  int64
	decoded int64
	memory  Memory
}

// Read reads decoded bytes.
func (d *Decoder) Read(p []byte) (int, error) {
	if err := d.memory.Want(min(d.window, d.decoded+int64(len(p)))); err != nil {
		return 0, err
	}
	n, err := d.Reader.Read(p)
	d.decoded += int64(n)
	if err != nil {
		d.memory.Free()
	}
	return n, err //nolint:wrapcheck // an io.Reader hands errors through
}

// Close gives the memory back; what the decoder reads from is not closed.
func (d *Decoder) Close() error {
	d.memory.Free()
	return nil
}

// Closing is a body's close that closes the decoder too.
func (d *Decoder) Closing(closeBody func() error) func() error {
	return func() error {
		d.memory.Free()
		return closeBody()
	}
}

// Reader counts what is read of r.
func (m *Memory) Reader(r io.Reader) io.Reader { return &counting{r: r, m: m} }

type counting struct {
	r io.Reader
	m *Memory
	n int64
}

// Read counts.
func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if busy := c.m.Want(c.n); busy != nil {
		return 0, busy
	}
	return n, err //nolint:wrapcheck // an io.Reader hands errors through
}
