//go:build linux

package frames

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/proto"
)

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
}

func TestFramesOfManySendersNeverMix(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := NewWriter(&out)
	var wg sync.WaitGroup
	for _, c := range "abcd" {
		wg.Go(func() {
			for range 50 {
				if err := w.Send(proto.KindStdout, bytes.Repeat([]byte(string(c)), 1000)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r, n := proto.NewStreamReader(&out), 0
	for {
		_, data, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || len(data) != 1000 || strings.Trim(string(data), string(data[0])) != "" {
			t.Fatalf("frame %d of %d bytes: %v", n, len(data), err)
		}
		n++
	}
	if n != 200 {
		t.Errorf("%d frames", n)
	}
}

func TestOutputIsWholeWhenTheLastWriterGoes(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	var out bytes.Buffer
	o := Copy(r, proto.KindStderr, NewWriter(&out), &Pool{})
	want := strings.Repeat("0123456789", 100_000)
	if _, err := w.WriteString(want); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	o.Finish(time.Minute)
	if got := joined(t, &out, proto.KindStderr); got != want {
		t.Errorf("%d bytes of %d", len(got), len(want))
	}
}

func joined(t *testing.T, in io.Reader, want proto.Kind) string {
	t.Helper()
	var all strings.Builder
	for r := proto.NewStreamReader(in); ; {
		kind, data, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all.String()
		}
		if err != nil || kind != want {
			t.Fatal(kind, err)
		}
		all.Write(data)
	}
}

func TestFinishSendsWhatWasWrittenThoughThePipeStaysOpen(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	var out bytes.Buffer
	o := Copy(r, proto.KindStdout, NewWriter(&out), &Pool{})
	if _, err := w.WriteString("last words"); err != nil {
		t.Fatal(err)
	}
	o.Finish(0)
	if got := joined(t, &out, proto.KindStdout); got != "last words" {
		t.Errorf("%q", got)
	}
	if _, err := w.Write(make([]byte, 1<<20)); err != nil { // a background process is neither blocked nor killed
		t.Error(err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestAGoneHostDoesNotBlockTheCommand(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	o := Copy(r, proto.KindStdout, NewWriter(broken{}), &Pool{})
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	o.Finish(time.Minute)
}

func TestInputArrivesInOrderThenEnds(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	in := Feed(w)
	var want strings.Builder
	var reader sync.WaitGroup
	var got []byte
	reader.Go(func() { got, _ = io.ReadAll(r) })
	for i := range 3000 {
		chunk := strings.Repeat(string(rune('a'+i%26)), 700)
		want.WriteString(chunk)
		for !in.offer([]byte(chunk)) {
			<-in.room
		}
	}
	in.CloseAfter()
	reader.Wait()
	if string(got) != want.String() {
		t.Errorf("%d bytes of %d", len(got), want.Len())
	}
	in.Close()
}

func TestInputThatNobodyReadsIsBounded(t *testing.T) {
	t.Parallel()
	_, w := pipe(t)
	in := Feed(w)
	chunk := make([]byte, 64<<10)
	for n := 0; in.offer(chunk); n += len(chunk) {
		if n > 4*maxQueued {
			t.Fatal("input is queued without end")
		}
	}
	var err error
	for range 4 { // the pipe itself takes one more
		if err = in.Put(chunk, NewSource(strings.NewReader(""))); err != nil {
			break
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("a gone host is noticed as %v", err)
	}
	in.Close()
}

func TestWindowSizes(t *testing.T) {
	t.Parallel()
	if size, err := ParseSize([]byte(`{"cols":132,"rows":43}`)); err != nil || size != (proto.WindowSize{Cols: 132, Rows: 43}) {
		t.Errorf("%+v, %v", size, err)
	}
	for _, text := range []string{"", "{", "{}", `{"cols":0,"rows":1}`, `{"cols":70000,"rows":1}`, `{"cols":-1,"rows":1}`, strings.Repeat(" ", 300)} {
		if size, err := ParseSize([]byte(text)); err == nil {
			t.Errorf("%q is taken as %+v", text, size)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add([]byte(`{"cols":80,"rows":24}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if size, err := ParseSize(data); err == nil && size.Validate() != nil {
			t.Errorf("%q is taken as %+v", data, size)
		}
	})
}

// FuzzSource holds reading with probes in between to reading without.
func FuzzSource(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02hi\x05\x00\x00\x00\x01\x02"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, probes uint8) {
		probed, plain := NewSource(bytes.NewReader(data)), proto.NewStreamReader(bytes.NewReader(data))
		for {
			for range probes % 16 {
				_ = probed.probe()
			}
			k1, d1, err1 := probed.Next()
			k2, d2, err2 := plain.Next()
			if k1 != k2 || !bytes.Equal(d1, d2) || (err1 == nil) != (err2 == nil) {
				t.Fatalf("%v %q %v, without probes %v %q %v", k1, d1, err1, k2, d2, err2)
			}
			if err1 != nil {
				return
			}
		}
	})
}
