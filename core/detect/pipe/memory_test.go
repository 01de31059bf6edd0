package pipe

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"capsem/core/mitm/flow"
)

// nothing is a filter that takes everything.
type nothing struct{}

func (nothing) Push(p []byte, _ bool) ([]byte, error) { return p, nil }

// bulky is a short body whose decoder has to remember 8 MiB, and which has not ended.
func bulky(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithWindowSize(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(make([]byte, 20<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestDecodersTogetherHoldBoundedMemory(t *testing.T) {
	text := bulky(t)
	before := inUse.Load()
	var held []io.Closer
	busy := 0
	for range maxMemory/(8<<20) + 4 {
		d, err := Decode("zstd", bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, d)
		if _, err = io.CopyN(io.Discard, d, 9<<20); err == nil {
			continue
		}
		var no *flow.Refusal
		if !errors.As(err, &no) || no.Status != http.StatusServiceUnavailable {
			t.Fatal(err)
		}
		busy++
	}
	if busy < 4 || inUse.Load() > maxMemory {
		t.Errorf("%d of %d refused, %d bytes in use", busy, len(held), inUse.Load())
	}
	p := NewPeek("zstd", io.NopCloser(bytes.NewReader(text)), nothing{}, nothing{}, nil)
	var no *flow.Refusal
	if _, err := io.Copy(io.Discard, p); !errors.As(err, &no) || no.Status != http.StatusServiceUnavailable {
		t.Errorf("a request when there is no memory left: %v", err)
	}
	_ = p.Close()
	for _, d := range held {
		_ = d.Close()
		_ = d.Close()
	}
	if now := inUse.Load(); now != before {
		t.Errorf("%d bytes are in use afterwards, %d before", now, before)
	}
}

func TestMemoryIsGivenBackAtTheEnd(t *testing.T) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = io.WriteString(z, strings.Repeat("text ", 1<<20))
	_ = z.Close()
	before := inUse.Load()
	for _, cut := range []int{0, 10} {
		p := NewPeek("gzip", io.NopCloser(bytes.NewReader(out.Bytes()[:out.Len()-cut])), nothing{}, nothing{}, nil)
		if _, err := io.Copy(io.Discard, p); (err != nil) != (cut > 0) {
			t.Errorf("%d bytes cut: %v", cut, err)
		}
		_ = p.Close()
		d, err := Decode("gzip", bytes.NewReader(out.Bytes()[:out.Len()-cut]))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, d)
	}
	if now := inUse.Load(); now != before {
		t.Errorf("%d bytes are in use afterwards, %d before", now, before)
	}
}
