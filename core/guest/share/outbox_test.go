//go:build linux

package share

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"capsem/core/share/wire"
)

// host is the other end of a stream: it notes what it was sent, and breaks when told.
type host struct {
	got    []uint64
	broken bool
}

func (h *host) Write(b []byte) (int, error) {
	if h.broken {
		return 0, errors.New("broken")
	}
	for rest := b; len(rest) > 0; {
		size := wire.FrameHead + int(binary.BigEndian.Uint32(rest))
		head, _, err := wire.ParseRequest(rest[wire.FrameHead:size])
		if err != nil {
			return 0, err
		}
		h.got, rest = append(h.got, head.Unique), rest[size:]
	}
	return len(b), nil
}

func (h *host) Close() error { return nil }

func request(op wire.Op, unique uint64) *message {
	frame := wire.AppendRequest(make([]byte, wire.FrameHead), op, unique, 1, nil)
	wire.PutHead(frame)
	return &message{op: op, unique: unique, frame: frame}
}

func TestUnansweredRequestsAreSentAgainInOrder(t *testing.T) {
	o := newOutbox()
	one, two := &host{}, &host{}
	o.put(request(wire.OpInit, 1))
	o.begin(one, 0)
	o.answered(1)
	o.put(request(wire.OpForget, 2)) // carried out before 3 is answered
	o.put(request(wire.OpLookup, 3))
	o.put(request(wire.OpForget, 4))
	o.put(request(wire.OpInterrupt, 5))
	o.put(request(wire.OpMkdir, 6))
	o.answered(3)
	one.broken = true
	o.put(request(wire.OpForget, 7))
	o.put(request(wire.OpRead, 8))
	if !o.resumes() {
		t.Error("INIT was answered")
	}
	o.begin(two, 2) // the host has carried out 2 and 4
	if want := []uint64{1, 2, 3, 4, 5, 6}; !slices.Equal(one.got, want) {
		t.Errorf("first %v, want %v", one.got, want)
	}
	if want := []uint64{1, 6, 7, 8}; !slices.Equal(two.got, want) {
		t.Errorf("again %v, want %v", two.got, want)
	}
	if _, ok := o.answered(3); ok {
		t.Error("answered twice")
	}
}

func TestForgettingIsRememberedWithinBounds(t *testing.T) {
	o := newOutbox()
	for i := range uint64(3 * maxForgets) {
		o.put(request(wire.OpForget, i))
	}
	if len(o.forgot) > maxForgets || o.unsent.Len() > maxUnsent {
		t.Error(len(o.forgot), o.unsent.Len())
	}
}

func TestTooManyRequestsWaitUntilOneIsAnswered(t *testing.T) {
	o := newOutbox()
	for i := range uint64(maxWaiting) {
		o.put(request(wire.OpRead, i))
	}
	done := make(chan bool)
	go func() { done <- o.put(request(wire.OpRead, 9999)) }()
	o.answered(5)
	if !<-done {
		t.Error("refused")
	}
	go func() { done <- o.put(request(wire.OpRead, 10000)) }()
	if left := o.close(); len(left) < maxWaiting {
		t.Error(len(left), "unanswered")
	}
	if <-done {
		t.Error("accepted while closing")
	}
}

func TestThePollFileIsNobodyElses(t *testing.T) {
	p := newPollFile()
	for what, head := range map[string]wire.Header{
		"a name":   {Op: wire.OpLookup, Node: wire.RootID},
		"a node":   {Op: wire.OpOpen, Node: 2},
		"the root": {Op: wire.OpGetattr, Node: wire.RootID},
	} {
		if _, ours := p.answer(head, []byte("file\x00")); ours {
			t.Error(what, "is answered here")
		}
	}
	if b, ours := p.answer(wire.Header{Op: wire.OpLookup, Node: wire.RootID, Unique: 3}, append([]byte(p.name), 0)); !ours || len(b) != wire.OutSize+wire.EntrySize {
		t.Error("its own name is not answered")
	}
}
