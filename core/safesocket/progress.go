package safesocket

import (
	"io"
	"sync/atomic"
)

// stuckFor is how many looks in a row must find that nothing moves.
const stuckFor = 10

// Progress is a writer that knows whether anything moves: whoever forwards what a peer sent last, before it left, may go on as long
// as it is being taken.
type Progress struct {
	to    io.Writer
	n     atomic.Int64
	seen  int64
	still int
}

// NewProgress wraps to.
func NewProgress(to io.Writer) *Progress { return &Progress{to: to} }

// Write writes and counts.
func (p *Progress) Write(b []byte) (int, error) {
	n, err := p.to.Write(b)
	p.n.Add(int64(n))
	return n, err //nolint:wrapcheck // a writer hands errors through
}

// Stuck reports whether the last ten looks all found the same count of bytes. It is for the gone of OnHangUp.
func (p *Progress) Stuck() bool {
	now := p.n.Load()
	if now != p.seen {
		p.seen, p.still = now, 0
	}
	p.still++
	return p.still > stuckFor
}
