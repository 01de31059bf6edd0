package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

// record wraps frames as a session with that tag would.
func record(frames []byte, tag [4]byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(dataByte<<24|uint32(len(frames)))<<32)
	return append(append(b, frames...), tag[:]...)
}

func frame(kind byte, flags uint16, id, length uint32, body ...byte) []byte {
	b := make([]byte, frameHead)
	b[1] = kind
	binary.BigEndian.PutUint16(b[2:], flags)
	binary.BigEndian.PutUint32(b[4:], id)
	binary.BigEndian.PutUint32(b[8:], length)
	return append(b, body...)
}

func dataFrame(id uint32, body []byte) []byte {
	return frame(typeData, 0, id, uint32(len(body)), body...)
}

// readOnly is a carrier with fixed bytes to read.
type readOnly struct{ io.Reader }

func (readOnly) Write(p []byte) (int, error) { return len(p), nil }
func (readOnly) Close() error                { return nil }

func hostReading(b []byte) *recordConn {
	return newRecordConn(newWire(readOnly{bytes.NewReader(b)}), [16]byte{}, true)
}

func TestRecordsThatAreRefused(t *testing.T) {
	var tag [4]byte
	good := dataFrame(2, []byte("good"))
	for name, b := range map[string][]byte{
		"no record":                 []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		"bytes confirmed too early": append([]byte{dataByte, 0, 0, 0, 0, 0, 0, 1}, tag[:]...),
		"a record over the limit":   binary.BigEndian.AppendUint64(nil, (dataByte<<24|(maxPayload+1))<<32),
		"a wrong tag":               record(good, [4]byte{1}),
		"a frame cut short":         record(good[:10], tag),
		"a body longer than record": record(frame(typeData, 0, 2, 100, 1, 2), tag),
		"a body of 4 GiB":           record(frame(typeData, 0, 2, 1<<32-1), tag),
		"a frame of version 1":      record(append([]byte{1}, good[1:]...), tag),
		"a ping":                    record(frame(2, flagSYN, 0, 1), tag),
		"a go-away":                 record(frame(3, 0, 0, 0), tag),
		"a go-away over an error":   record(frame(3, 0, 0, 1), tag),
		"an unknown type":           record(frame(9, 0, 2, 0), tag),
		"stream 0":                  record(frame(typeWindow, flagSYN, 0, 0), tag),
		"a stream of our numbers":   record(frame(typeWindow, flagSYN, 1, 0), tag),
		"a damaged control record":  append(magic[:], make([]byte, 24)...),
		"a HELLO to the host":       control{kind: kindHello, nonce: [16]byte{1}}.encode(),
		"another session's ACK":     control{kind: kindAck, nonce: [16]byte{1}}.encode(),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := io.ReadAll(hostReading(append(record(good, tag), b...)))
			if !errors.Is(err, errCorrupt) || !bytes.Equal(got, good) {
				t.Errorf("%d bytes, %v; want what came before and an error", len(got), err)
			}
		})
	}
}

func TestDuplicatesOfTheHandshakeAreSkipped(t *testing.T) {
	good := dataFrame(2, []byte("good"))
	b := append(control{kind: kindGo}.encode(), record(good, [4]byte{})...)
	b = append(b, control{kind: kindAck}.encode()...)
	got, err := io.ReadAll(hostReading(b))
	if !bytes.Equal(got, good) || !errors.Is(err, io.EOF) {
		t.Errorf("%q, %v", got, err)
	}
}

// counting remembers the sizes of the writes it gets.
type counting struct {
	readOnly
	writes []int
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes = append(c.writes, len(p))
	return len(p), nil
}

func TestFramesLeaveInOneWrite(t *testing.T) {
	c := &counting{}
	r := newRecordConn(newWire(c), [16]byte{}, true)
	write := func(b []byte) {
		t.Helper()
		if _, err := r.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	write(frame(typeWindow, flagSYN, 1, 0)) // a new stream waits for its header
	write(frame(typeData, 0, 1, 3))
	if err := r.reset(4); err != nil { // not inside a frame
		t.Fatal(err)
	}
	write([]byte("abc"))
	write(frame(typeWindow, 0, 1, 1000))
	want := []int{12 + 12 + 12 + 3, 12 + 12, 12 + 12}
	if len(c.writes) != 3 || c.writes[0] != want[0] || c.writes[1] != want[1] || c.writes[2] != want[2] {
		t.Errorf("writes of %v bytes, want %v", c.writes, want)
	}
}

func TestHeldFramesNeverOutgrowARecord(t *testing.T) {
	c := &counting{}
	r := newRecordConn(newWire(c), [16]byte{}, true)
	for range 1000 {
		if _, err := r.Write(frame(typeWindow, flagSYN, 1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Write(frame(typeData, 0, 1, maxFrameBody)); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if err := r.reset(4); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Write(make([]byte, maxFrameBody)); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range c.writes {
		total += n - recordHead - recordTail
		if n > maxRecord {
			t.Errorf("a record of %d bytes", n)
		}
	}
	if want := 2000*frameHead + frameHead + maxFrameBody; total != want {
		t.Errorf("%d bytes left, want %d", total, want)
	}
}

func FuzzRecords(f *testing.F) {
	var tag [4]byte
	f.Add(record(dataFrame(2, []byte("x")), tag))
	f.Add(append(record(frame(typeWindow, flagSYN, 2, 0), tag), record(dataFrame(2, nil), tag)...))
	f.Add(append(control{kind: kindGo}.encode(), record(resetFrame(2), tag)...))
	f.Add(bytes.Repeat([]byte{padByte}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := io.ReadAll(hostReading(b))
		if err == nil {
			t.Fatal("no error at the end")
		}
		if len(got) > len(b) {
			t.Fatal("more came out than went in")
		}
		if err := (frameChecker{}).frames(got); err != nil {
			t.Fatalf("yamux is given %v", err)
		}
	})
}
