package proto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func head(kind byte, length uint32, body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, length), body...)
}

func TestAStreamFrameIsAtMostAChunk(t *testing.T) {
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"a chunk":                  {head(1, MaxChunk, make([]byte, MaxChunk)...), nil},
		"one byte more":            {head(1, MaxChunk+1, make([]byte, MaxChunk+1)...), ErrBadStreamFrame},
		"nothing in it":            {head(0, 0), nil},
		"the last kind":            {head(9, 1, 'x'), nil},
		"the kind after it":        {head(10, 1, 'x'), ErrBadStreamFrame},
		"the highest kind":         {head(255, 0), ErrBadStreamFrame},
		"the sign bit":             {head(1, 1<<31), ErrBadStreamFrame},
		"minus one":                {head(1, 1<<32-1), ErrBadStreamFrame},
		"nothing":                  {nil, io.EOF},
		"a kind alone":             {[]byte{1}, io.ErrUnexpectedEOF},
		"half a length":            {[]byte{1, 0, 0}, io.ErrUnexpectedEOF},
		"no content":               {head(1, 5), io.ErrUnexpectedEOF},
		"half the content":         {head(1, 5, 'a', 'b'), io.ErrUnexpectedEOF},
		"a chunk but for one byte": {head(1, MaxChunk, make([]byte, MaxChunk-1)...), io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			in := metered(c.in)
			kind, data, err := NewStreamReader(in).Next()
			if !errors.Is(err, c.want) || errors.Is(err, io.EOF) != errors.Is(c.want, io.EOF) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if errors.Is(err, ErrBadStreamFrame) && (in.read != streamHead || in.largest > streamHead) {
				t.Errorf("%d bytes are read of what is refused", in.read)
			}
			if err == nil && (byte(kind) != c.in[0] || !bytes.Equal(data, c.in[streamHead:])) {
				t.Errorf("kind %d and %d bytes", kind, len(data))
			}
		})
	}
}

func TestAChunkIsTheMostThatIsWritten(t *testing.T) {
	var w bytes.Buffer
	if err := WriteStreamFrame(&w, KindData, make([]byte, MaxChunk+1)); !errors.Is(err, ErrBadStreamFrame) || w.Len() != 0 {
		t.Errorf("over the limit: %v, %d bytes are written", err, w.Len())
	}
	if err := WriteStreamFrame(&w, KindData, make([]byte, MaxChunk)); err != nil || w.Len() != streamHead+MaxChunk {
		t.Errorf("at the limit: %v, %d bytes are written", err, w.Len())
	}
}

func TestAStreamReaderTakesOneBuffer(t *testing.T) {
	in := bytes.Repeat(head(1, 3, 'a', 'b', 'c'), 10_000)
	n := taken(func() {
		r := NewStreamReader(bytes.NewReader(in))
		for {
			if _, _, err := r.Next(); err != nil {
				return
			}
		}
	})
	if n > 4*MaxChunk {
		t.Errorf("%d bytes are allocated for 10000 frames of 3", n)
	}
}

// FuzzStreamFrames reads any bytes as stream frames: those that pass are, written again, the bytes that were read.
func FuzzStreamFrames(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x02hi\x03\x00\x00\x00\x02{}"))
	f.Add([]byte("\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00"))
	f.Add([]byte("\x0a\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x00\x01\x00\x01"))
	f.Add([]byte("\x01\x00\x00\x00\x05hi"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := metered(b)
		r, slow := NewStreamReader(in), NewStreamReader(iotest.OneByteReader(bytes.NewReader(b)))
		var w bytes.Buffer
		for {
			start := in.read
			kind, data, err := r.Next()
			slowly, same, slowErr := slow.Next()
			if kind != slowly || !bytes.Equal(data, same) || (err == nil) != (slowErr == nil) {
				t.Fatalf("%d %q %v; byte by byte %d %q %v", kind, data, err, slowly, same, slowErr)
			}
			if in.largest > MaxChunk {
				t.Fatalf("a read of %d bytes", in.largest)
			}
			if err != nil {
				checkEnd(t, b[start:], in.read-start, err)
				break
			}
			if kind > KindError || len(data) > MaxChunk {
				t.Fatalf("kind %d, %d bytes", kind, len(data))
			}
			if err := WriteStreamFrame(&w, kind, data); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(b, w.Bytes()) {
			t.Fatalf("%x was read as %x", b, w.Bytes())
		}
	})
}

// checkEnd holds the error to what was left: nothing, a bad head of which no content was read, or a frame cut short.
func checkEnd(t *testing.T, rest []byte, read int, err error) {
	t.Helper()
	bad := len(rest) >= streamHead && (rest[0] > byte(KindError) || binary.BigEndian.Uint32(rest[1:]) > MaxChunk)
	switch {
	case len(rest) == 0:
		if !errors.Is(err, io.EOF) {
			t.Fatalf("a clean end is %v", err)
		}
	case bad:
		if !errors.Is(err, ErrBadStreamFrame) || read != streamHead {
			t.Fatalf("%x: %v, %d bytes are read", rest, err, read)
		}
	case !errors.Is(err, io.ErrUnexpectedEOF):
		t.Fatalf("%x: %v", rest, err)
	}
}
