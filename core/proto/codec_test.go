package proto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestALengthOverTheLimitTakesNoMemory(t *testing.T) {
	for name, c := range map[string]struct {
		claimed uint32
		limit   int
	}{
		"nothing":             {0, MaxFrame},
		"one more":            {MaxFrame + 1, MaxFrame},
		"one more, a header":  {MaxHeader + 1, MaxHeader},
		"the sign bit":        {1 << 31, MaxFrame},
		"minus one":           {1<<32 - 1, MaxFrame},
		"a limit of nothing":  {1, 0},
		"a limit below zero":  {1, -1},
		"minus one for both":  {1<<32 - 1, -1},
		"a gibibyte, at once": {1 << 30, MaxHeader},
	} {
		t.Run(name, func(t *testing.T) {
			in := metered(append(binary.BigEndian.AppendUint32(nil, c.claimed), 0xa0))
			var h StreamHeader
			var err error
			n := taken(func() { err = ReadFrame(in, c.limit, &h) })
			if !errors.Is(err, ErrFrameTooLarge) {
				t.Errorf("error %v", err)
			}
			if in.read != 4 || n > 64<<10 {
				t.Errorf("%d bytes are read, %d allocated", in.read, n)
			}
		})
	}
}

func TestAFrameMayBeAsLongAsItsLimit(t *testing.T) {
	for limit, head := range map[int]int{1: 1, MaxHeader: 3, MaxFrame: 5} { // head is what CBOR puts before so many bytes
		var w bytes.Buffer
		if err := WriteFrame(&w, make([]byte, limit-head)); err != nil || w.Len() != 4+limit {
			t.Fatalf("a frame of %d: %d bytes, %v", limit, w.Len(), err)
		}
		var data []byte
		if err := ReadFrame(iotest.OneByteReader(bytes.NewReader(w.Bytes())), limit, &data); err != nil || len(data) != limit-head {
			t.Errorf("a frame of %d: %d bytes, %v", limit, len(data), err)
		}
		if err := ReadFrame(&w, limit-1, &data); !errors.Is(err, ErrFrameTooLarge) {
			t.Errorf("a frame of %d under a limit of one less: %v", limit, err)
		}
	}
}

func TestOnlyAnEndBetweenFramesIsClean(t *testing.T) {
	var w bytes.Buffer
	if err := WriteFrame(&w, StreamHeader{Port: PortExec}); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if err := WriteStreamFrame(&stream, KindData, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		frame []byte
		read  func(io.Reader) error
	}{
		"CBOR": {w.Bytes(), func(r io.Reader) error { return ReadFrame(r, MaxHeader, &StreamHeader{}) }},
		"stream": {stream.Bytes(), func(r io.Reader) error {
			_, _, err := NewStreamReader(r).Next()
			return err
		}},
	} {
		for n := range c.frame {
			for how, end := range map[string]error{"an end": io.EOF, "an end with words": fmt.Errorf("read carrier: %w", io.EOF)} {
				err := c.read(io.MultiReader(bytes.NewReader(c.frame[:n]), iotest.ErrReader(end)))
				if errors.Is(err, io.EOF) != (n == 0) || errors.Is(err, io.ErrUnexpectedEOF) != (n > 0) {
					t.Errorf("%s frame, %s after %d bytes: %v", name, how, n, err)
				}
			}
		}
	}
	if err := Unmarshal(nil, &StreamHeader{}); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		t.Errorf("no bytes at all: %v", err)
	}
}

func TestAFrameOverTheLimitIsNotWritten(t *testing.T) {
	var w bytes.Buffer
	for _, n := range []int{MaxFrame - 4, MaxFrame, 4 * MaxFrame} { // 5 bytes are CBOR's
		if err := WriteFrame(&w, make([]byte, n)); !errors.Is(err, ErrFrameTooLarge) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if err := WriteGuest(&w, BootReady{Failed: []string{strings.Repeat("x", n)}}); !errors.Is(err, ErrFrameTooLarge) {
			t.Errorf("a message of %d bytes: %v", n, err)
		}
	}
	if w.Len() != 0 {
		t.Errorf("%d bytes are written", w.Len())
	}
}

func TestAFrameIsOneWrite(t *testing.T) {
	var w counted
	for _, write := range []func() error{
		func() error { return WriteFrame(&w, StreamHeader{Port: PortExec}) },
		func() error { return WriteHost(&w, Ping{EpochNS: 1}) },
		func() error { return WriteGuest(&w, Pong{}) },
		func() error { return WriteStreamFrame(&w, KindData, make([]byte, MaxChunk)) },
		func() error { return WriteStreamFrame(&w, KindData, nil) },
	} {
		w = 0
		if err := write(); err != nil || w != 1 {
			t.Errorf("%d writes, %v", w, err)
		}
	}
}

type counted int

func (c *counted) Write(p []byte) (int, error) {
	*c++
	return len(p), nil
}

func TestCBORThatIsRefused(t *testing.T) {
	deep := func(n int) string { return "\xa1\x63new" + strings.Repeat("\x81", n) + "\x00" } // a field nobody knows
	for name, c := range map[string]struct {
		body string
		ok   bool
	}{
		"a header":                 {"\xa1\x64port\x19\x13\x88", true},
		"a field of later":         {"\xa2\x63new\x01\x64port\x01", true},
		"no field":                 {"\xa0", true},
		"bytes behind":             {"\xa0\x00", false},
		"cut short":                {"\xa1\x64port\x19\x13", false},
		"no value":                 {"\xa1\x64port", false},
		"a number alone":           {"\x01", false},
		"a list":                   {"\x81\x01", false},
		"a text for a number":      {"\xa1\x64port\x611", false},
		"a negative number":        {"\xa1\x64port\x20", false},
		"over 32 bits":             {"\xa1\x64port\x1b\x00\x00\x00\x01\x00\x00\x00\x00", false},
		"half a number":            {"\xa1\x64port\xf9\x38\x00", false},
		"bytes for a text":         {"\xa1\x64dest\x41a", false},
		"a field twice":            {"\xa2\x64port\x01\x64port\x02", false},
		"an unknown field twice":   {"\xa2\x63new\x01\x63new\x02", false},
		"an open map":              {"\xbf\xff", false},
		"an open text":             {"\xa1\x64dest\x7f\x61a\xff", false},
		"a tag":                    {"\xa1\x64port\xc1\x01", false},
		"a tag in what is unknown": {"\xa1\x63new\xc1\x01", false},
		"a text of half a letter":  {"\xa1\x64dest\x61\xc3", false},
		"a surrogate":              {"\xa1\x64dest\x63\xed\xa0\x80", false},
		"a name that is no text":   {"\xa1\x64d\xffst\x60", false},
		"a zero byte":              {"\xa1\x64dest\x61\x00", true}, // text to CBOR; Validate is what refuses it where it matters
		"15 levels":                {deep(15), true},
		"16 levels more":           {deep(16), false},
		"a thousand levels":        {deep(1000), false},
		"4096 elements":            {"\xa1\x63new\x99\x10\x00" + strings.Repeat("\x00", 4096), true},
		"4097 elements":            {"\xa1\x63new\x99\x10\x01" + strings.Repeat("\x00", 4097), false},
		"elements without end":     {"\xa1\x63new\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", false},
		"a text without end":       {"\xa1\x64dest\x7b\x7f\xff\xff\xff\xff\xff\xff\xff", false},
		"pairs without end":        {"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff", false},
	} {
		t.Run(name, func(t *testing.T) {
			var h StreamHeader
			var err error
			n := taken(func() { err = ReadFrame(bytes.NewReader(framed([]byte(c.body))), 2*MaxHeader, &h) })
			if (err == nil) != c.ok {
				t.Errorf("error %v", err)
			}
			if n > 1<<20 {
				t.Errorf("%d bytes are allocated", n)
			}
		})
	}
}

func TestListsAndMapsTakeMemoryWithinBounds(t *testing.T) {
	pairs := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString("\x62" + string([]byte{byte(i >> 6), byte(i & 63)}) + "\x60")
		}
		return b.String()
	}
	for name, c := range map[string]struct {
		body  string
		fresh any
		ok    bool
	}{
		"4096 jobs":      {"\xa1\x64jobs\x99\x10\x00" + strings.Repeat("\xa1\x64exit\xa0", 4096), &WorkerReply{}, true},
		"4097 jobs":      {"\xa1\x64jobs\x99\x10\x01" + strings.Repeat("\xa1\x64exit\xa0", 4097), &WorkerReply{}, false},
		"4096 stages":    {"\xa1\x66stages\x99\x10\x00" + strings.Repeat("\xa0", 4096), &BootTiming{}, true},
		"4096 variables": {"\xa1\x63env\xb9\x10\x00" + pairs(4096), &ExecRequest{}, true},
		"4097 variables": {"\xa1\x63env\xb9\x10\x01" + pairs(4097), &ExecRequest{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			n := taken(func() { err = ReadFrame(bytes.NewReader(framed([]byte(c.body))), MaxFrame, c.fresh) })
			if (err == nil) != c.ok || n > mostMemory {
				t.Errorf("%d bytes are allocated, %v", n, err)
			}
		})
	}
}

// FuzzReadFrame takes any bytes of a peer under any limit: nothing is asked for over the limit, nothing past the frame is read.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x08\xa1\x64port\x19\x13\x88"), MaxHeader)
	f.Add([]byte("\x00\x00\x00\x01\xa0rest"), 1)
	f.Add([]byte("\xff\xff\xff\xff"), MaxFrame)
	f.Add([]byte("\x00\x00\x10\x01"), MaxHeader)
	f.Add([]byte("\x00\x00\x00\x00"), -1)
	f.Add([]byte("\x00\x00"), 0)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		limit = min(limit, MaxFrame)
		in := metered(b)
		var h StreamHeader
		var err error
		n := taken(func() { err = ReadFrame(in, limit, &h) })
		if in.largest > max(limit, 4) || n > uint64(max(limit, 0)+1<<20) {
			t.Fatalf("a read of %d bytes, %d allocated, under a limit of %d", in.largest, n, limit)
		}
		if len(b) < 4 {
			if err == nil || errors.Is(err, io.EOF) != (len(b) == 0) {
				t.Fatalf("%d bytes are %v", len(b), err)
			}
			return
		}
		claimed := int64(binary.BigEndian.Uint32(b))
		if refused := claimed == 0 || claimed > int64(limit); refused != errors.Is(err, ErrFrameTooLarge) || (refused && in.read != 4) {
			t.Fatalf("%d bytes claimed under a limit of %d: %d read, %v", claimed, limit, in.read, err)
		}
		if int64(in.read) > 4+claimed {
			t.Fatalf("%d bytes are read of a frame of %d", in.read, claimed)
		}
		if err == nil {
			if int64(in.read) != 4+claimed {
				t.Fatalf("%d bytes are read of a frame of %d", in.read, claimed)
			}
			again(t, &h, &StreamHeader{})
		}
	})
}
