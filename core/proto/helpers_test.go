package proto

import (
	"bytes"
	"encoding/binary"
	"io"
	"runtime"
	"strings"
	"testing"
)

// mostMemory bounds what reading one frame may take: at most 4096 elements are made of a few bytes each.
const mostMemory = 4 << 20

// validated is a frame that its receiver has to check.
type validated interface{ Validate() error }

// framed is body as one frame.
func framed(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// meter notes how far a peer's bytes were read, and the largest read that was asked for.
type meter struct {
	r       io.Reader
	read    int
	largest int
}

func (m *meter) Read(p []byte) (int, error) {
	m.largest = max(m.largest, len(p))
	n, err := m.r.Read(p)
	m.read += n
	return n, err
}

func metered(b []byte) *meter { return &meter{r: bytes.NewReader(b)} }

// taken is how many bytes f allocates.
func taken(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// written is v as a frame; nil when it is larger than a frame may be.
func written(t *testing.T, v any) []byte {
	t.Helper()
	body, err := Marshal(v)
	if err != nil {
		t.Fatalf("what was decoded cannot be encoded: %v", err)
	}
	var w bytes.Buffer
	if err := WriteFrame(&w, v); (err != nil) != (len(body) > MaxFrame) {
		t.Fatalf("writing a body of %d bytes: %v", len(body), err)
	}
	return w.Bytes()
}

// again writes v, reads it into fresh and holds it to be the same.
func again(t *testing.T, v, fresh any) {
	t.Helper()
	frame := written(t, v)
	if frame == nil {
		return
	}
	if err := ReadFrame(bytes.NewReader(frame), MaxFrame, fresh); err != nil {
		t.Fatalf("%+v is written and cannot be read: %v", v, err)
	}
	if second := written(t, fresh); !bytes.Equal(frame, second) {
		t.Fatalf("written %x, read and written again %x", frame, second)
	}
}

// limit is one value at or over a limit.
type limit struct {
	v  validated
	ok bool
}

// holdsLimits runs a table; what passes also crosses the wire and passes there.
func holdsLimits(t *testing.T, fresh func() validated, cases map[string]limit) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := c.v.Validate()
			if (err == nil) != c.ok {
				t.Fatalf("Validate says %v", err)
			}
			if err != nil {
				if len(err.Error()) > 1024 || strings.ContainsAny(err.Error(), "\x00\x1b\n") {
					t.Errorf("the error repeats what it refuses: %q", err)
				}
				return
			}
			other := fresh()
			again(t, c.v, other)
			if err := other.Validate(); err != nil {
				t.Errorf("the other side says %v", err)
			}
		})
	}
}

// many is n different environment variables.
func many(n int) map[string]string {
	env := map[string]string{}
	for i := range n {
		env[strings.Repeat("V", i+1)] = ""
	}
	return env
}
