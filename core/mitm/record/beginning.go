package record

import (
	"io"
	"strings"
	"sync"

	"capsem/core/mitm/body"
)

// beginning keeps the first bytes of a body, decoded, as they pass.
type beginning struct {
	limit int

	mu   sync.Mutex
	data []byte
}

func newBeginning(limit int) *beginning { return &beginning{limit: limit} }

// text is what was kept; of no body, nothing.
func (b *beginning) text() string {
	if b == nil {
		return ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.ToValidUTF8(string(b.data), "\ufffd")
}

// Write keeps what there is room for.
func (b *beginning) Write(p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if room := b.limit - len(b.data); room > 0 {
		b.data = append(b.data, p[:min(room, len(p))]...)
	}
}

// Close is the end of the copy. Why it came is no matter: a beginning is what is wanted.
func (b *beginning) Close(error) {}

// of is a body whose beginning is kept.
func (b *beginning) of(rc io.ReadCloser, encoding string) io.ReadCloser {
	return body.Inspect(rc, encoding, body.Limits{Decoded: int64(b.limit)}, b)
}
