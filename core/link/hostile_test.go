package link

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"capsem/core/proto"
)

// rawStream opens a stream of the guest below this package: without a header, and with nobody who closes it.
func rawStream(t *testing.T, guest Session) *yamux.Stream {
	t.Helper()
	ys, err := guest.(*session).mux.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	return ys
}

func TestSilentStreamsAreDroppedAndHoldUpNobody(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pairWith(t, h, g, patience{header: 200 * time.Millisecond, linger: usual.linger, start: usual.start})
	echo(t, host, proto.PortLifecycle)
	silent := make([]*yamux.Stream, 100)
	for i := range silent {
		silent[i] = rawStream(t, guest)
		_, _ = silent[i].Write([]byte{0, 0}) // half a length
	}
	st := open(t, guest, proto.PortLifecycle)
	_, _ = st.Write([]byte("x"))
	if _, err := io.ReadFull(st, make([]byte, 1)); err != nil {
		t.Errorf("a stream behind the silent ones: %v", err)
	}
	for _, ys := range silent {
		if _, err := ys.Read(make([]byte, 1)); !errors.Is(err, yamux.ErrConnectionReset) {
			t.Fatalf("a silent stream ends with %v", err)
		}
	}
	closeAll(t, st)
}

func TestTheNumberOfOpenStreamsIsBounded(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pairWith(t, h, g, patience{header: usual.header, linger: time.Millisecond, start: usual.start})
	l := listen(t, host, proto.PortNetwork)
	taken := make([]Stream, MaxIncoming)
	for i := range taken {
		open(t, guest, proto.PortNetwork) // and never closed by the guest
		taken[i] = accept(t, l)
	}
	for range 50 {
		st := open(t, guest, proto.PortNetwork)
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, ErrRefused) {
			t.Fatalf("a stream over the limit: %v", err)
		}
		closeAll(t, st)
	}
	closeAll(t, taken[0])
	for again := false; !again; { // closing makes room, once the stream has been reset
		st := open(t, guest, proto.PortNetwork)
		_ = st.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := st.Read(make([]byte, 1))
		again = errors.Is(err, os.ErrDeadlineExceeded)
	}
	for _, in := range taken {
		closeAll(t, in)
	}
	for mux := host.(*session).mux; mux.NumStreams() > 10; {
		st := open(t, guest, proto.PortNetwork) // resets are noticed when something comes
		closeAll(t, accept(t, l), st)
	}
}

func TestAFullListenerRefuses(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	l := listen(t, host, proto.PortNetwork)
	for range listenBacklog {
		open(t, guest, proto.PortNetwork)
	}
	for len(l.(*listener).queue) < listenBacklog {
		runtime.Gosched()
	}
	for range 20 {
		st := open(t, guest, proto.PortNetwork)
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, ErrRefused) {
			t.Errorf("a stream over the limit: %v", err)
		}
	}
}

func TestAPeerThatGoesOnSendingToAClosedStreamIsReset(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	l := listen(t, host, proto.PortNetwork)
	st := open(t, guest, proto.PortNetwork)
	closeAll(t, accept(t, l))
	for sent := 0; ; {
		n, err := st.Write(make([]byte, 64<<10))
		sent += n
		if err != nil {
			if !errors.Is(err, ErrReset) {
				t.Errorf("Write: %v", err)
			}
			break
		}
		if sent > 8<<20 {
			t.Fatal("writing to a closed stream goes on")
		}
	}
	checkAlive(t, host, guest)
}

func checkAlive(t *testing.T, host, guest Session) {
	t.Helper()
	echo(t, guest, proto.PortExec)
	st := open(t, host, proto.PortExec)
	_, _ = st.Write([]byte("x"))
	if _, err := io.ReadFull(st, make([]byte, 1)); err != nil {
		t.Errorf("the session is no longer usable: %v", err)
	}
}

func TestMoreThanTheWindowEndsTheSession(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	l := listen(t, host, proto.PortNetwork)
	st := open(t, guest, proto.PortNetwork)
	accept(t, l)
	conn, id := guest.(*session).conn, st.(*stream).mux.StreamID()
	conn.w.interrupt() // the guest's own reader stops: it would end over confirmations of what is written past it
	<-guest.Done()
	if err := g.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	var sending sync.WaitGroup
	sending.Go(func() { // until the host takes no more: what was read before gives some of the window back
		for range 2 << 20 / maxFrameBody {
			if _, err := conn.w.carrier.Write(record(dataFrame(id, make([]byte, maxFrameBody)), conn.ownTag)); err != nil {
				return
			}
		}
	})
	if err := ended(t, host); !errors.Is(err, ErrSessionEnded) {
		t.Errorf("ended with %v", err)
	}
	_ = g.SetDeadline(time.Unix(1, 0))
	sending.Wait()
}

// yamux would go on with a session in which it opens no more streams.
func TestAGoAwayEndsTheSession(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	conn := guest.(*session).conn
	if _, err := g.Write(record(frame(3, 0, 0, 0), conn.ownTag)); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, host); !errors.Is(err, ErrSessionEnded) || !errors.Is(err, errCorrupt) {
		t.Errorf("ended with %v", err)
	}
}

// A peer that sends what costs answers and never reads them must not make this side gather them.
func TestAFloodWithoutReadingTakesNoMemory(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	listen(t, host, proto.PortNetwork)
	conn := guest.(*session).conn
	conn.w.interrupt() // the guest's own reader stops; what follows is written past it
	if err := g.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	routines := runtime.NumGoroutine()
	for id := uint32(2); id < 2*100_000; id += 2 {
		_ = g.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := g.Write(record(frame(typeWindow, flagSYN, id, 0), conn.ownTag)); err != nil {
			break // the host has stopped reading: it does not take on what it cannot answer
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	if n := runtime.NumGoroutine() - routines; n > 3*MaxIncoming {
		t.Errorf("%d goroutines more", n)
	}
	closeAll(t, host)
}
