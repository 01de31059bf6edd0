package link

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"capsem/core/proto"
)

func TestStreamsCarryBytesBothWaysOverEveryCarrier(t *testing.T) {
	carriers := map[string]func(testing.TB) (net.Conn, net.Conn){
		"unix socket": unixPair, "socket pair": socketPair,
		"pipe": func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() },
	}
	for name, make := range carriers {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			h, g := make(t)
			host, guest := pair(t, h, g)
			if host.Nonce() != guest.Nonce() {
				t.Fatal("the two sides disagree about the nonce")
			}
			echo(t, guest, proto.PortExec)
			echo(t, host, proto.PortLifecycle)
			for from, port := range map[Session]proto.Port{host: proto.PortExec, guest: proto.PortLifecycle} {
				sent := randomBytes(t, 1<<20)
				st := open(t, from, port)
				go func() {
					_, _ = st.Write(sent)
					_ = st.(CloseWriter).CloseWrite()
				}()
				if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("port %v: got %d bytes back, %v", port, len(got), err)
				}
				closeAll(t, st)
			}
		})
	}
}

func randomBytes(tb testing.TB, n int) []byte {
	tb.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestManyStreamsAtOnceAreNotMixed(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	echo(t, guest, proto.PortExec)
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			st, err := host.Open(t.Context(), proto.StreamHeader{Port: proto.PortExec})
			if err != nil {
				t.Error(err)
				return
			}
			defer st.Close()
			sent := randomBytes(t, 200<<10)
			go func() {
				_, _ = st.Write(sent)
				_ = st.(CloseWriter).CloseWrite()
			}()
			if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("got %d bytes back, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

func TestHeaderAndFirstBytesArriveAsSent(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	l := listen(t, guest, proto.PortForward)
	want := proto.StreamHeader{Port: proto.PortForward, Process: "curl", Dest: "127.0.0.1:80"}
	st, err := host.(RequestOpener).OpenWith(t.Context(), want, []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	closeWrite(t, st)
	in := accept(t, l)
	got, err := io.ReadAll(in)
	if in.Header() != want || st.Header() != want || string(got) != "first" || err != nil {
		t.Errorf("header %+v, bytes %q, %v", in.Header(), got, err)
	}
}

func TestRefusedStreams(t *testing.T) {
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	l := listen(t, guest, proto.PortExec)
	t.Run("by the acceptor", func(t *testing.T) {
		st := open(t, host, proto.PortExec)
		accept(t, l).(Refuser).Refuse()
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, ErrRefused) {
			t.Errorf("Read: %v, want ErrRefused", err)
		}
	})
	t.Run("reset after some bytes", func(t *testing.T) {
		st := open(t, host, proto.PortExec)
		in := accept(t, l)
		_, _ = in.Write([]byte("x"))
		if _, err := io.ReadFull(st, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		in.(Refuser).Refuse()
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, ErrReset) {
			t.Errorf("Read: %v, want ErrReset", err)
		}
	})
	t.Run("nobody listens once the session has begun", func(t *testing.T) {
		guest.(*session).started = time.Now().Add(-usual.start)
		st := open(t, host, proto.PortTerminal)
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, ErrRefused) {
			t.Errorf("Read: %v, want ErrRefused", err)
		}
	})
	t.Run("the listener was closed with streams waiting", func(t *testing.T) {
		st := open(t, host, proto.PortExec)
		for len(l.(*listener).queue) == 0 {
			<-time.After(time.Millisecond)
		}
		closeAll(t, l)
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, ErrRefused) {
			t.Errorf("Read: %v, want ErrRefused", err)
		}
		if _, err := l.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v, want net.ErrClosed", err)
		}
	})
}

func TestAListenerThatComesALittleLateGetsItsStreams(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	st := open(t, host, proto.PortExec)
	_, _ = st.Write([]byte("early"))
	for guest.(*session).mux.NumStreams() == 0 {
		<-time.After(time.Millisecond)
	}
	in := accept(t, listen(t, guest, proto.PortExec))
	got := make([]byte, 5)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "early" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestCloseWriteKeepsReading(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	l := listen(t, guest, proto.PortForward)
	st := open(t, host, proto.PortForward)
	_, _ = st.Write([]byte("question"))
	closeWrite(t, st)
	if _, err := st.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after CloseWrite: %v", err)
	}
	in := accept(t, l)
	if got, err := io.ReadAll(in); string(got) != "question" || err != nil {
		t.Fatalf("the other side got %q, %v", got, err)
	}
	_, _ = in.Write([]byte("answer"))
	closeWrite(t, in)
	if got, err := io.ReadAll(st); string(got) != "answer" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestCloseUnblocksReadersAndWriters(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	listen(t, guest, proto.PortExec)
	for name, use := range map[string]func(Stream) error{
		"read":  func(st Stream) error { _, err := st.Read(make([]byte, 1)); return err },
		"write": func(st Stream) error { _, err := st.Write(make([]byte, 1<<20)); return err },
	} {
		st := open(t, host, proto.PortExec)
		result := make(chan error, 1)
		go func() { result <- use(st) }()
		closeAll(t, st)
		select {
		case err := <-result:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: %v, want net.ErrClosed", name, err)
			}
		case <-time.After(soon):
			t.Fatalf("%s goes on after Close", name)
		}
	}
}

func TestDeadlines(t *testing.T) {
	noLeaks(t)
	h, g := socketPair(t)
	host, guest := pair(t, h, g)
	listen(t, guest, proto.PortExec)
	st := open(t, host, proto.PortExec)
	if err := st.SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	if _, err := st.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
}

func TestTheEndOfASessionIsNeverAnEndOfFile(t *testing.T) {
	for name, end := range map[string]func(h, g net.Conn, host, guest Session){
		"the carrier breaks":        func(_, g net.Conn, _, _ Session) { _ = g.Close() },
		"the other side closes":     func(_, _ net.Conn, _, guest Session) { _ = guest.Close() },
		"this side closes":          func(_, _ net.Conn, host, _ Session) { _ = host.Close() },
		"garbage where a record is": func(_, g net.Conn, _, _ Session) { _, _ = g.Write(bytes.Repeat([]byte("garbage!"), 10)) },
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			h, g := socketPair(t)
			host, guest := pair(t, h, g)
			echo(t, guest, proto.PortExec)
			l := listen(t, host, proto.PortLifecycle)
			st := open(t, host, proto.PortExec)
			go end(h, g, host, guest)
			if n, err := io.Copy(io.Discard, st); !errors.Is(err, ErrSessionEnded) {
				t.Errorf("Read: %d bytes, %v, want ErrSessionEnded", n, err)
			}
			if err := ended(t, host); !errors.Is(err, ErrSessionEnded) {
				t.Errorf("Err: %v", err)
			}
			if _, err := st.Write([]byte("x")); !errors.Is(err, ErrSessionEnded) {
				t.Errorf("Write: %v", err)
			}
			if _, err := l.Accept(t.Context()); !errors.Is(err, ErrSessionEnded) {
				t.Errorf("Accept: %v", err)
			}
			if _, err := host.Open(t.Context(), proto.StreamHeader{Port: proto.PortExec}); !errors.Is(err, ErrSessionEnded) {
				t.Errorf("Open: %v", err)
			}
			if _, err := host.Listen(proto.PortExec); !errors.Is(err, ErrSessionEnded) {
				t.Errorf("Listen: %v", err)
			}
		})
	}
}

func TestOpenAndConnectObeyTheContext(t *testing.T) {
	noLeaks(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the user left"))
	h, g := socketPair(t)
	host, _ := pair(t, h, g)
	if _, err := host.Open(ctx, proto.StreamHeader{Port: proto.PortExec}); err == nil {
		t.Error("Open succeeds under a canceled context")
	}
	h2, g2 := socketPair(t)
	defer g2.Close()
	if _, err := Connect(ctx, h2, quiet()); err == nil || !strings.Contains(err.Error(), "the user left") {
		t.Errorf("Connect: %v", err)
	}
	if _, err := g2.Write([]byte("x")); err == nil {
		t.Error("Connect failed but left the carrier open")
	}
}

func TestBadPortsAndHeadersAreRefusedHere(t *testing.T) {
	h, g := socketPair(t)
	host, _ := pair(t, h, g)
	if _, err := host.Open(t.Context(), proto.StreamHeader{Port: 22}); err == nil {
		t.Error("Open of an unknown port succeeds")
	}
	if _, err := host.Open(t.Context(), proto.StreamHeader{Port: proto.PortExec, Process: strings.Repeat("x", 200)}); err == nil {
		t.Error("Open with an overlong header succeeds")
	}
	if _, err := host.Listen(22); err == nil {
		t.Error("Listen on an unknown port succeeds")
	}
	listen(t, host, proto.PortDNS)
	if _, err := host.Listen(proto.PortDNS); err == nil {
		t.Error("two listeners on one port")
	}
}
