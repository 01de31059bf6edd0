package machine

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"capsem/core/proto"
)

// FuzzGuestFrames reads what a guest may send on a stream: no input may panic, and a frame that passes is within its bounds.
func FuzzGuestFrames(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x02hi\x03\x00\x00\x00\x0a{\"code\":3}"))
	f.Add([]byte("\x08\x00\x00\x00\x0b{\"ok\":true}"))
	f.Add([]byte("\x63\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, fr := bytes.NewReader(b), newFrame()
		defer fr.free()
		for fr.read(r) == nil {
			if fr.kind() > proto.KindError || len(fr.data()) > proto.MaxChunk {
				t.Fatalf("kind %d, %d bytes", fr.kind(), len(fr.data()))
			}
			if exit, err := decodeExit(fr.data()); err == nil {
				check(t, exit.Signal, exit.Error)
				if exit.Code < 0 || exit.Code > 255 || exit.DurationUS < 0 {
					t.Fatalf("exit %+v", exit)
				}
			}
			if result, err := decodeResult(fr.data()); err == nil {
				check(t, result.Message)
			}
		}
	})
}

// check holds a guest's text to what may be shown.
func check(t *testing.T, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if len(s) > 1024 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f || r == 0x9b }) {
			t.Fatalf("text %q", s)
		}
	}
}

// FuzzConsole takes the last lines of any console.
func FuzzConsole(f *testing.F) {
	f.Add([]byte("boot\n\x1b]0;title\x07\r\npanic\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		text := linesOf(b)
		if strings.Count(text, "\n") >= consoleLines || len(text) > len(b) {
			t.Fatalf("%d bytes", len(text))
		}
		for line := range strings.Lines(text) {
			for _, r := range strings.TrimSuffix(line, "\n") {
				if (r < ' ' && r != '\t') || r == 0x7f {
					t.Fatalf("%q", line)
				}
			}
		}
	})
}

// FuzzSpec reads any vm.json: what passes is complete.
func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"id":"a","cpus":1,"memory_mb":256,"disk_mb":1024,"ready_timeout_ms":1,"machine_id":"` + strings.Repeat("0", 32) + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		spec, err := parseSpec(b)
		if err == nil && (spec.CPUs < 1 || spec.MemoryMB < 256 || spec.ID == "" || len(spec.MachineID) != 32 || hostname(spec.ID) == "") {
			t.Fatalf("passes: %+v", spec)
		}
	})
}

func TestAFrameIsReadWholeOrNotAtAll(t *testing.T) {
	whole := frameOf(proto.KindStdout, "text")
	for n := range len(whole) {
		fr := newFrame()
		err := fr.read(strings.NewReader(whole[:n]))
		if (n == 0) != errors.Is(err, io.EOF) || err == nil {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
		fr.free()
	}
}

// frameOf is one frame as text.
func frameOf(kind proto.Kind, data string) string {
	var b strings.Builder
	_ = proto.WriteStreamFrame(&b, kind, []byte(data)) // a strings.Builder takes everything
	return b.String()
}
