package ws

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"capsem/core/mitm/flow"
)

// wire is one frame; a mask of nil is none.
func wire(first byte, mask []byte, payload string) []byte {
	out := []byte{first, byte(min(len(payload), 125))}
	switch {
	case len(payload) >= 1<<16:
		out[1] = 127
		out = binary.BigEndian.AppendUint64(out, uint64(len(payload)))
	case len(payload) > 125:
		out[1] = 126
		out = binary.BigEndian.AppendUint16(out, uint16(len(payload)))
	}
	if mask == nil {
		return append(out, payload...)
	}
	out[1] |= 0x80
	out = append(out, mask...)
	for i := range len(payload) {
		out = append(out, payload[i]^mask[i&3])
	}
	return out
}

var key = []byte{0xde, 0xad, 0xbe, 0xef}

func read(guest bool, keep, piece int, stream []byte) (seen []string, r *Reader, err error) {
	r = NewReader(guest, keep, func(m Message) error {
		seen = append(seen, fmt.Sprintf("%d:%d:%s", m.Opcode, m.Size, m.Data))
		return nil
	})
	for len(stream) > 0 && err == nil {
		n := min(piece, len(stream))
		_, err = r.Write(stream[:n])
		stream = stream[n:]
	}
	return seen, r, err
}

func TestMessagesAreReadHoweverTheyAreCutUp(t *testing.T) {
	long, longer := strings.Repeat("a", 300), strings.Repeat("b", 70_000)
	stream := bytes.Join([][]byte{
		wire(0x81, key, "hello"), wire(0x02, key, "be"), wire(0x89, key, "ping"), wire(0x00, key, "gin"), wire(0x80, key, "ning"),
		wire(0x82, key, ""), wire(0x81, key, long), wire(0x82, key, longer), wire(0x88, key, "\x03\xe8"),
	}, nil)
	want := []string{"1:5:hello", "9:4:ping", "2:9:beginning", "2:0:", "1:300:" + long[:20], "2:70000:" + longer[:20], "8:2:\x03\xe8"}
	for _, piece := range []int{1, 2, 3, 7, 1000, len(stream)} {
		seen, r, err := read(true, 20, piece, stream)
		if err != nil || fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Errorf("in pieces of %d: %.300q, %v", piece, seen, err)
		}
		if r.Messages != 7 || r.Frames != 9 {
			t.Errorf("%d messages in %d frames", r.Messages, r.Frames)
		}
	}
	if seen, _, err := read(false, 20, 3, wire(0x81, nil, "answer")); err != nil || fmt.Sprint(seen) != "[1:6:answer]" {
		t.Errorf("%q %v", seen, err)
	}
}

func TestBreachesOfTheProtocolAreErrors(t *testing.T) {
	huge := append([]byte{0x82, 0xff}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4)
	for name, stream := range map[string][]byte{
		"not masked": wire(0x81, nil, "x"), "reserved bit": wire(0xc1, key, "x"), "unknown opcode": wire(0x83, key, "x"),
		"unknown control opcode": wire(0x8b, key, "x"), "continuation of nothing": wire(0x80, key, "x"),
		"message in a message": append(wire(0x01, key, "x"), wire(0x81, key, "y")...), "control in pieces": wire(0x09, key, "x"),
		"long control": wire(0x89, key, strings.Repeat("x", 126)), "impossible length": huge,
		"length in too many bytes": {0x81, 0xfe, 0, 5, 1, 2, 3, 4}, "length in far too many": {0x81, 0xff, 0, 0, 0, 0, 0, 0, 1, 0, 1, 2, 3, 4},
	} {
		if _, r, err := read(true, 10, len(stream), stream); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		} else if n, again := r.Write([]byte{0}); n != 0 || !errors.Is(again, ErrProtocol) {
			t.Errorf("%s: it goes on: %d %v", name, n, again)
		}
	}
	if _, _, err := read(false, 10, 10, wire(0x81, key, "x")); !errors.Is(err, ErrProtocol) {
		t.Errorf("masked by the host: %v", err)
	}
}

func TestInspectorsAreCalledInTurnAndMayEndIt(t *testing.T) {
	f := &flow.Flow{Header: http.Header{}}
	sent, _ := Readers(f)
	if _, err := sent.Write(wire(0x81, key, "nobody looks")); err != nil || sent.Messages != 1 {
		t.Error(err)
	}
	var seen []string
	enough := errors.New("enough")
	Inspect(f, 3, func(m Message) error { seen = append(seen, "first "+string(m.Data)); return nil })
	Inspect(f, 5, func(m Message) error {
		seen = append(seen, "second "+string(m.Data))
		if m.FromGuest {
			return nil
		}
		return enough
	})
	sent, received := Readers(f)
	if _, err := sent.Write(wire(0x81, key, "question")); err != nil {
		t.Error(err)
	}
	if _, err := received.Write(wire(0x81, nil, "answer")); !errors.Is(err, enough) {
		t.Error(err)
	}
	if want := "[first quest second quest first answe second answe]"; fmt.Sprint(seen) != want {
		t.Error(seen)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(wire(0x81, key, "hello"), true, 3)
	f.Add(append(wire(0x01, nil, "x"), wire(0x80, nil, "y")...), false, 1)
	f.Add([]byte{0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5}, true, 2)
	f.Fuzz(func(t *testing.T, stream []byte, guest bool, piece int) {
		before := bytes.Clone(stream)
		whole, r, err := read(guest, 16, max(len(stream), 1), stream)
		cut, r2, err2 := read(guest, 16, 1+max(piece, -piece)%7&7, stream)
		if fmt.Sprint(whole) != fmt.Sprint(cut) || (err == nil) != (err2 == nil) || r.Messages != r2.Messages {
			t.Errorf("%q %v, but in pieces %q %v", whole, err, cut, err2)
		}
		if !bytes.Equal(before, stream) {
			t.Error("the bytes were changed")
		}
		if len(r.message.data) > 16 || len(r.control.data) > 16 {
			t.Error("more is kept than was asked for")
		}
	})
}
