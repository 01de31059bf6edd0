package body

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// collector is a sink that keeps everything; hold, when set, is received from before each write.
type collector struct {
	mu     sync.Mutex
	got    bytes.Buffer
	err    error
	closed int
	hold   chan struct{}
	wrote  chan struct{}
	panics bool
}

func (c *collector) Write(p []byte) {
	if c.hold != nil {
		<-c.hold
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed > 0 {
		panic("written to after its end")
	}
	c.got.Write(p)
	if c.wrote != nil {
		c.wrote <- struct{}{}
	}
	if c.panics {
		panic("broken")
	}
}

func (c *collector) Close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	c.closed++
}

func (c *collector) result() (text string, closed int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got.String(), c.closed, c.err
}

func encode(t testing.TB, coding string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch coding {
	case "gzip", "x-gzip", "GZIP":
		w = gzip.NewWriter(&out)
	case "deflate":
		w = zlib.NewWriter(&out)
	case "raw":
		w, err = flate.NewWriter(&out, flate.DefaultCompression)
	case "br":
		w = brotli.NewWriter(&out)
	case "zstd":
		w, err = zstd.NewWriter(&out)
	default:
		return data
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// pass reads a body as a proxy does, and says what came through and what the sink has.
func pass(t testing.TB, encoded []byte, encoding string, limits Limits) (text string, err error) {
	t.Helper()
	sink := &collector{}
	limits.Stall = time.Minute
	b := Inspect(io.NopCloser(bytes.NewReader(encoded)), encoding, limits, sink)
	through, readErr := io.ReadAll(b)
	if readErr != nil || !bytes.Equal(through, encoded) {
		t.Errorf("%s: what passes has changed: %d bytes of %d, %v", encoding, len(through), len(encoded), readErr)
	}
	if err := b.Close(); err != nil {
		t.Errorf("%s: %v", encoding, err)
	}
	text, closed, err := sink.result()
	if closed != 1 {
		t.Errorf("%s: the sink was closed %d times", encoding, closed)
	}
	return text, err
}

func TestTheCopyIsDecoded(t *testing.T) {
	t.Parallel()
	random := make([]byte, 100<<10)
	_, _ = rand.Read(random)
	for name, data := range map[string][]byte{"text": []byte(strings.Repeat("hello, world\n", 5000)), "random": random, "one byte": []byte("x"), "nothing": nil} {
		for _, c := range []struct {
			encoding string
			chain    []string
		}{
			{"", nil},
			{"identity", nil},
			{"gzip", []string{"gzip"}},
			{" X-GZip ", []string{"gzip"}},
			{"deflate", []string{"deflate"}},
			{"deflate", []string{"raw"}},
			{"br", []string{"br"}},
			{"zstd", []string{"zstd"}},
			{"gzip, br", []string{"gzip", "br"}},
			{"identity,zstd , deflate", []string{"zstd", "raw"}},
			{"gzip,gzip,gzip", []string{"gzip", "gzip", "gzip"}},
		} {
			encoded := data
			for _, coding := range c.chain {
				encoded = encode(t, coding, encoded)
			}
			if got, err := pass(t, encoded, c.encoding, Limits{}); err != nil || got != string(data) {
				t.Errorf("%s in %q %v: %d bytes, %v", name, c.encoding, c.chain, len(got), err)
			}
		}
	}
	for _, encoding := range []string{"gzip", "deflate", "br", "zstd", "gzip, zstd"} {
		if got, err := pass(t, nil, encoding, Limits{}); err != nil || got != "" {
			t.Errorf("an empty body said to be %s: %q, %v", encoding, got, err)
		}
	}
	two := append(encode(t, "gzip", []byte("a")), encode(t, "gzip", []byte("b"))...)
	if got, err := pass(t, two, "gzip", Limits{}); err != nil || got != "ab" {
		t.Errorf("two members: %q, %v", got, err)
	}
}

func TestWhatIsWrongIsReportedAndPassesAllTheSame(t *testing.T) {
	t.Parallel()
	text := []byte(strings.Repeat("hello, world\n", 1000))
	zeros := make([]byte, 4<<20)
	for name, c := range map[string]struct {
		encoded  []byte
		encoding string
		limits   Limits
		want     error
	}{
		"unknown":              {text, "compress", Limits{}, ErrEncoding},
		"one unknown":          {text, "gzip, secret", Limits{}, ErrEncoding},
		"too many":             {text, strings.Repeat("gzip, ", 4), Limits{}, ErrEncoding},
		"a huge header":        {text, strings.Repeat("identity,", 100), Limits{}, ErrEncoding},
		"no gzip":              {text, "gzip", Limits{}, ErrCorrupt},
		"no deflate":           {[]byte("\xff\xff\xff\xff"), "deflate", Limits{}, ErrCorrupt},
		"no brotli":            {[]byte("\x00\xff\xff\xff\xff\xff"), "br", Limits{}, ErrCorrupt},
		"no zstd":              {text, "zstd", Limits{}, ErrCorrupt},
		"half a gzip":          {encode(t, "gzip", text)[:30], "gzip", Limits{}, ErrCorrupt},
		"half a brotli":        {encode(t, "br", text)[:10], "br", Limits{}, ErrCorrupt},
		"half a zstd":          {encode(t, "zstd", text)[:20], "zstd", Limits{}, ErrCorrupt},
		"half a deflate":       {encode(t, "raw", text)[:20], "deflate", Limits{}, ErrCorrupt},
		"gzip checksum":        {append(encode(t, "gzip", text)[:len(encode(t, "gzip", text))-5], 1, 2, 3, 4, 5), "gzip", Limits{}, ErrCorrupt},
		"more after deflate":   {append(encode(t, "raw", text), "more"...), "deflate", Limits{}, ErrTrailing},
		"more after gzip":      {append(encode(t, "gzip", text), "more"...), "gzip", Limits{}, ErrCorrupt},
		"large":                {text, "", Limits{Decoded: 100}, ErrTooLarge},
		"large once decoded":   {encode(t, "gzip", text), "gzip", Limits{Decoded: 100}, ErrTooLarge},
		"large in between":     {encode(t, "gzip", encode(t, "gzip", zeros)), "gzip, gzip", Limits{Decoded: 1000}, ErrTooLarge},
		"gzip bomb":            {encode(t, "gzip", zeros), "gzip", Limits{}, ErrBomb},
		"brotli bomb":          {encode(t, "br", zeros), "br", Limits{}, ErrBomb},
		"zstd bomb":            {encode(t, "zstd", zeros), "zstd", Limits{}, ErrBomb},
		"deflate bomb in gzip": {encode(t, "gzip", encode(t, "raw", zeros)), "deflate, gzip", Limits{}, ErrBomb},
		"brotli window":        {encode(t, "br", text), "br", Limits{Window: 1 << 12}, ErrWindow},
		"zstd window":          {[]byte("\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00"), "zstd", Limits{Window: 1 << 20}, ErrWindow},
	} {
		if got, err := pass(t, c.encoded, c.encoding, c.limits); !errors.Is(err, c.want) {
			t.Errorf("%s: %d bytes, %v, want %v", name, len(got), err, c.want)
		} else if c.limits.Decoded > 0 && int64(len(got)) > c.limits.Decoded {
			t.Errorf("%s: the sink got %d bytes", name, len(got))
		}
	}
}

func TestAFailingBodyIsReported(t *testing.T) {
	t.Parallel()
	failed := errors.New("connection reset")
	text := []byte("hello, world")
	for _, coding := range []string{"", "gzip", "br", "zstd", "deflate"} {
		sink := &collector{}
		encoded := encode(t, coding, text)
		b := Inspect(io.NopCloser(io.MultiReader(bytes.NewReader(encoded[:len(encoded)-2]), iotest.ErrReader(failed))), coding, Limits{Stall: time.Minute}, sink)
		if _, err := io.ReadAll(b); !errors.Is(err, failed) {
			t.Errorf("%q: %v", coding, err)
		}
		_ = b.Close()
		if _, closed, err := sink.result(); !errors.Is(err, failed) || closed != 1 {
			t.Errorf("%q: the sink was told %v, %d times", coding, err, closed)
		}
	}
}

func TestABodyThatIsClosedEarlyLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 50 {
		for _, coding := range []string{"", "gzip", "br", "zstd", "deflate"} {
			sink := &collector{}
			encoded := encode(t, coding, bytes.Repeat([]byte("x"), 1000))
			b := Inspect(io.NopCloser(bytes.NewReader(encoded)), coding, Limits{Stall: time.Minute}, sink)
			if _, err := io.ReadFull(b, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			_ = b.Close()
			if _, closed, err := sink.result(); !errors.Is(err, ErrCut) || closed != 1 {
				t.Errorf("%q: %v, closed %d times", coding, err, closed)
			}
			_ = b.Close() // and once more does nothing
		}
	}
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before+2; {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}

func TestBodiesBeyondTheBudgetAreNotLookedAt(t *testing.T) {
	t.Parallel()
	budget := NewBudget(9 << 20) // one of zstd's default windows
	encoded := encode(t, "zstd", []byte("hello"))
	limits := Limits{Stall: time.Minute, Budget: budget}
	for range 3 {
		one, other := &collector{}, &collector{}
		first := Inspect(io.NopCloser(bytes.NewReader(encoded)), "zstd", limits, one)
		second := Inspect(io.NopCloser(bytes.NewReader(encoded)), "zstd", limits, other)
		for _, b := range []io.ReadCloser{first, second} {
			if through, err := io.ReadAll(b); err != nil || !bytes.Equal(through, encoded) {
				t.Errorf("%q, %v", through, err)
			}
			_ = b.Close()
		}
		if text, _, err := one.result(); text != "hello" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
		if text, closed, err := other.result(); text != "" || closed != 1 || !errors.Is(err, ErrBusy) {
			t.Errorf("%q, %d, %v", text, closed, err)
		}
	}
	if left := budget.left.Load(); left != 9<<20 {
		t.Errorf("%d bytes came back", left)
	}
}

func TestASlowSinkIsGivenUp(t *testing.T) {
	t.Parallel()
	random := make([]byte, 1<<20)
	_, _ = rand.Read(random)
	encoded := encode(t, "gzip", random)
	sink := &collector{hold: make(chan struct{})}
	b := Inspect(io.NopCloser(bytes.NewReader(encoded)), "gzip", Limits{Stall: 20 * time.Millisecond}, sink)
	through, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(through, encoded) {
		t.Errorf("%d bytes of %d, %v", len(through), len(encoded), err)
	}
	close(sink.hold)
	_ = b.Close()
	for {
		if _, closed, err := sink.result(); closed > 0 {
			if !errors.Is(err, ErrSlow) {
				t.Errorf("%v", err)
			}
			return
		}
		runtime.Gosched()
	}
}

func TestASinkThatBreaksDownChangesNothing(t *testing.T) {
	t.Parallel()
	text := bytes.Repeat([]byte("hello"), 50000)
	for _, coding := range []string{"", "gzip", "zstd"} {
		sink := &collector{panics: true}
		encoded := encode(t, coding, text)
		b := Inspect(io.NopCloser(bytes.NewReader(encoded)), coding, Limits{Stall: time.Minute}, sink)
		if through, err := io.ReadAll(b); err != nil || !bytes.Equal(through, encoded) {
			t.Errorf("%q: %d bytes of %d, %v", coding, len(through), len(encoded), err)
		}
		_ = b.Close()
		if _, closed, err := sink.result(); !errors.Is(err, ErrPanic) || closed != 1 {
			t.Errorf("%q: %v, %d", coding, err, closed)
		}
	}
}

// An event is seen as soon as its flush has passed, not when the stream ends.
func TestEventsAreSeenAsTheyPass(t *testing.T) {
	t.Parallel()
	for _, coding := range []string{"gzip", "br", "zstd"} {
		r, w := io.Pipe()
		sink := &collector{wrote: make(chan struct{}, 100)}
		b := Inspect(r, coding, Limits{Stall: time.Minute}, sink)
		var writer interface {
			io.WriteCloser
			Flush() error
		}
		switch coding {
		case "gzip":
			writer = gzip.NewWriter(w)
		case "br":
			writer = brotli.NewWriter(w)
		default:
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			writer = z
		}
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(io.Discard, b) })
		want := ""
		for _, event := range []string{"data: one\n\n", "data: two\n\n"} {
			want += event
			if _, err := io.WriteString(writer, event); err != nil {
				t.Fatal(err)
			}
			if err := writer.Flush(); err != nil {
				t.Fatal(err)
			}
			for {
				<-sink.wrote
				if text, _, _ := sink.result(); text == want {
					break
				}
			}
		}
		_ = writer.Close()
		_ = w.Close()
		reading.Wait()
		_ = b.Close()
	}
}

func FuzzInspect(f *testing.F) {
	text := []byte(strings.Repeat("hello, world\n", 50))
	for i, coding := range []string{"gzip", "deflate", "br", "zstd", "raw"} {
		f.Add(encode(f, coding, text), uint8(i), uint8(7))
	}
	f.Add([]byte("\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00"), uint8(3), uint8(1))
	encodings := []string{"gzip", "deflate", "br", "zstd", "", "gzip, br", "br, gzip", "zstd, deflate", "x"}
	f.Fuzz(func(t *testing.T, encoded []byte, encoding, step uint8) {
		sink := &collector{}
		const most = 1 << 20
		in := iotest.HalfReader(bytes.NewReader(encoded))
		b := Inspect(io.NopCloser(in), encodings[int(encoding)%len(encodings)], Limits{Decoded: most, Window: 1 << 20, Stall: time.Minute}, sink)
		var through []byte
		p := make([]byte, int(step)+1)
		for {
			n, err := b.Read(p)
			through = append(through, p[:n]...)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				break
			}
		}
		_ = b.Close()
		if !bytes.Equal(through, encoded) {
			t.Error("what passes has changed")
		}
		if got, closed, err := sink.result(); closed != 1 || len(got) > most || errors.Is(err, ErrPanic) {
			t.Errorf("closed %d times, %d bytes, %v", closed, len(got), err)
		}
	})
}

func BenchmarkInspect(b *testing.B) {
	text := bytes.Repeat([]byte(`{"id": 1234567, "name": "something", "values": [1, 2, 3]}`+"\n"), 20000)
	for _, coding := range []string{"", "gzip", "br", "zstd"} {
		encoded := encode(b, coding, text)
		b.Run("coding="+coding, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			p := make([]byte, 32<<10)
			for b.Loop() {
				body := Inspect(io.NopCloser(bytes.NewReader(encoded)), coding, Limits{}, discard{})
				for {
					if _, err := body.Read(p); err != nil {
						break
					}
				}
				_ = body.Close()
			}
		})
	}
}

type discard struct{}

func (discard) Write([]byte) {}
func (discard) Close(error)  {}
