package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"capsem/core/proto"
)

// serialPort is a carrier of the guest that outlives its hosts, as a virtio-serial port does: what one host left
// half-written stays, the next host goes on behind it.
type serialPort struct {
	net.Conn          // the guest's end
	host     net.Conn // the host's end, kept open from host to host
}

func newSerialPort(t *testing.T) serialPort {
	h, g := socketPair(t)
	t.Cleanup(func() { _ = h.Close() })
	return serialPort{Conn: g, host: h}
}

// borrowed is a host's use of the port: closing it leaves the port open.
type borrowed struct{ net.Conn }

func (b borrowed) Close() error { return b.SetDeadline(time.Unix(1, 0)) }

func (p serialPort) connect(t *testing.T) Session {
	t.Helper()
	if err := p.host.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	s, err := Connect(ctx, borrowed{p.host}, quiet())
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	return s
}

// serveAgain accepts sessions on the port one after another and echoes in each.
func (p serialPort) serveAgain(t *testing.T) (ends <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	a := NewAcceptor(p.Conn, quiet())
	errs, stopped := make(chan error, 10), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			s, err := a.Accept(ctx)
			if err != nil {
				return
			}
			echo(t, s, proto.PortExec)
			select {
			case <-s.Done():
				errs <- s.Err()
			case <-ctx.Done():
				_ = s.Close()
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-stopped
		closeAll(t, a)
	})
	return errs
}

func checkEcho(t *testing.T, s Session) {
	t.Helper()
	st := open(t, s, proto.PortExec)
	defer st.Close()
	sent := randomBytes(t, 100<<10)
	go func() {
		_, _ = st.Write(sent)
		_ = st.(CloseWriter).CloseWrite()
	}()
	if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("echo of %d bytes: %d bytes, %v", len(sent), len(got), err)
	}
}

func TestANewHostTakesTheGuestOver(t *testing.T) {
	noLeaks(t)
	p := newSerialPort(t)
	ends := p.serveAgain(t)
	seen := map[[16]byte]bool{}
	for range 4 {
		s := p.connect(t)
		checkEcho(t, s)
		if seen[s.Nonce()] {
			t.Error("two sessions have the same nonce")
		}
		seen[s.Nonce()] = true
		closeAll(t, s)
	}
	for range 3 {
		if err := <-ends; !errors.Is(err, ErrPeerRestarted) || !errors.Is(err, ErrSessionEnded) {
			t.Errorf("the guest's session ended with %v", err)
		}
	}
}

// A host that dies anywhere in a record must neither lock the guest up nor make it deliver bytes nobody sent.
func TestAHostThatDiesInsideARecord(t *testing.T) {
	for _, cut := range []int{1, 3, 4, 5, 11, 16, 17, 100, 5000, maxPayload} {
		noLeaks(t)
		p := newSerialPort(t)
		a := NewAcceptor(p.Conn, quiet())
		accepted := make(chan Session, 1)
		go func() {
			s, err := a.Accept(t.Context())
			if err != nil {
				t.Error(err)
			}
			accepted <- s
		}()
		first := p.connect(t)
		guest := <-accepted
		l := listen(t, guest, proto.PortExec)
		st := open(t, first, proto.PortExec)
		_, _ = st.Write([]byte("whole"))
		in := accept(t, l)
		if _, err := io.ReadFull(in, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		dieInside(t, p.host, first.(*session), st.(*stream).mux.StreamID(), cut)
		_ = first.Close()

		go func() {
			if n, err := io.Copy(io.Discard, in); n != 0 || !errors.Is(err, ErrSessionEnded) {
				t.Errorf("cut at %d: the guest was given %d bytes, %v", cut, n, err)
			}
			_ = guest.Close()
			s, err := a.Accept(context.WithoutCancel(t.Context()))
			if err != nil {
				t.Error(err)
				close(accepted)
				return
			}
			echo(t, s, proto.PortExec)
			accepted <- s
		}()
		second := p.connect(t)
		if s, ok := <-accepted; ok {
			checkEcho(t, second)
			closeAll(t, second, s, a)
		}
	}
}

// dieInside writes the first cut bytes of a long record of a session, as a host that is killed while it writes.
func dieInside(t *testing.T, carrier net.Conn, s *session, id uint32, cut int) {
	t.Helper()
	w := frameWriter{buf: make([]byte, recordHead)}
	frame := dataFrame(id, bytes.Repeat([]byte("x"), maxFrameBody))
	w.buf = append(w.buf, frame...)
	rec := record(w.buf[recordHead:], s.conn.ownTag)
	if _, err := carrier.Write(rec[:min(cut, len(rec)-1)]); err != nil {
		t.Fatal(err)
	}
}

func TestGarbageAndStaleBytesBeforeTheHandshake(t *testing.T) {
	stale := func(k kind, n byte) []byte { return control{kind: k, nonce: [16]byte{n}}.encode() }
	hello := stale(kindHello, 1)
	for name, before := range map[string]struct{ toGuest, toHost []byte }{
		"garbage":               {bytes.Repeat([]byte("\xf5garbage"), 20000), bytes.Repeat([]byte{magic[0], 0xD7, 0}, 50000)},
		"half a magic":          {magic[:5], magic[:7]},
		"half a HELLO":          {hello[:20], stale(kindAck, 1)[:31]},
		"HELLOs of dead hosts":  {bytes.Repeat(append(hello, stale(kindHello, 2)...), 50), nil},
		"a dead host's START":   {append(hello, stale(kindStart, 1)...), nil},
		"START without a HELLO": {stale(kindStart, 3), nil},
		"a dead session":        {nil, append(append(stale(kindAck, 9), stale(kindGo, 9)...), record(resetFrame(2), [4]byte{9})...)},
		"a damaged HELLO":       {append(hello[:30:30], 0, 0), append(stale(kindGo, 3)[:28:28], 1, 2, 3, 4)},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			p := newSerialPort(t)
			go func() { _, _ = p.Write(before.toHost) }()
			if len(before.toGuest) > 0 {
				go func() { _, _ = p.host.Write(before.toGuest) }()
			}
			p.serveAgain(t)
			s := p.connect(t)
			checkEcho(t, s)
			closeAll(t, s)
		})
	}
}

func TestTheNewestOfTwoHostsWins(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	w := newWire(g)
	one, two := control{kind: kindHello, nonce: [16]byte{1}}, control{kind: kindHello, nonce: [16]byte{2}}
	for _, c := range []control{one, two, {kindStart, one.nonce}, {kindStart, two.nonce}} {
		if _, err := h.Write(c.encode()); err != nil {
			t.Fatal(err)
		}
	}
	if nonce, err := answer(t.Context(), w); err != nil || nonce != two.nonce {
		t.Errorf("answered %v, %v", nonce, err)
	}
	closeAll(t, h, g)
}

func TestRepeatedHellosAreAnsweredWithoutAFlood(t *testing.T) {
	h, g := socketPair(t)
	n := control{kind: kindHello, nonce: [16]byte{7}}
	_, _ = h.Write(bytes.Repeat(n.encode(), 100))
	_, _ = h.Write(control{kindStart, n.nonce}.encode())
	if _, err := answer(t.Context(), newWire(g)); err != nil {
		t.Fatal(err)
	}
	closeAll(t, g)
	if got, _ := io.ReadAll(h); len(got) > 10*controlSize {
		t.Errorf("%d answers to 100 repeats", len(got)/controlSize)
	}
	closeAll(t, h)
}

func TestAHelloInsideTheContentIsContent(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	echo(t, guest, proto.PortExec)
	st := open(t, host, proto.PortExec)
	hello := bytes.Repeat(control{kind: kindHello, nonce: [16]byte{42}}.encode(), 3000)
	go func() {
		_, _ = st.Write(hello)
		_ = st.(CloseWriter).CloseWrite()
	}()
	if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, hello) {
		t.Errorf("%d of %d bytes, %v", len(got), len(hello), err)
	}
}

// slowly passes single bytes.
type slowly struct{ net.Conn }

func (s slowly) Read(p []byte) (int, error) { return s.Conn.Read(p[:1]) }

func TestTheHandshakeWorksByteByByte(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, slowly{h}, slowly{g})
	echo(t, guest, proto.PortExec)
	st := open(t, host, proto.PortExec)
	_, _ = st.Write([]byte("slow"))
	closeWrite(t, st)
	if got, err := io.ReadAll(st); string(got) != "slow" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestConnectGivesUpOnAnEndlessFlood(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	go func() {
		for {
			if _, err := g.Write(bytes.Repeat([]byte("flood"), 10000)); err != nil {
				return
			}
		}
	}()
	if _, err := Connect(t.Context(), h, quiet()); !errors.Is(err, errNoHandshake) {
		t.Errorf("Connect: %v", err)
	}
	closeAll(t, g)
}

func TestAcceptEndsWithItsContextOrCarrier(t *testing.T) {
	noLeaks(t)
	_, g := socketPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Accept(ctx, g, quiet()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Accept: %v", err)
	}
	h2, g2 := socketPair(t)
	closeAll(t, h2)
	if _, err := Accept(t.Context(), g2, quiet()); !errors.Is(err, io.EOF) {
		t.Errorf("Accept: %v", err)
	}
}

func FuzzScanControl(f *testing.F) {
	hello := control{kind: kindHello, nonce: [16]byte{1, 2, 3}}.encode()
	f.Add(hello)
	f.Add(append([]byte{magic[0], magic[0]}, hello...))
	f.Add(append(hello[:31:31], hello...))
	f.Add(bytes.Repeat([]byte{magic[0]}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, used, found := scanControl(b)
		if used < 0 || used > len(b) {
			t.Fatalf("used %d of %d", used, len(b))
		}
		if found && !bytes.Equal(b[used-controlSize:used], c.encode()) {
			t.Fatal("found what is not there")
		}
		if !found && bytes.Contains(b, hello) {
			t.Fatal("a record was overlooked")
		}
		if !found && len(b)-used >= controlSize {
			t.Fatalf("%d bytes are kept for a record of %d", len(b)-used, controlSize)
		}
		whole := append(bytes.Clone(b), hello...) // whatever came before, a HELLO is found
		for {
			_, used, found := scanControl(whole)
			if found && bytes.HasSuffix(whole[:used], hello) {
				return
			}
			if !found {
				t.Fatal("a record behind other bytes was overlooked")
			}
			whole = whole[used:]
		}
	})
}
