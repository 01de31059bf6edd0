package netproxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/guesttest"
	"capsem/core/guest/nettest"
	"capsem/core/guest/nft"
	"capsem/core/guest/procinfo"
	"capsem/core/link"
	"capsem/core/proto"
)

// rig is a net-proxy in a network like the guest's, with the host at the other end.
type rig struct {
	links *guesttest.Links
	host  link.Session
	in    link.Listener
	// stop ends the proxy and waits for it.
	stop func()
}

func start(t *testing.T, s Server) *rig {
	t.Helper()
	nettest.Up(t)
	r := &rig{links: guesttest.NewLinks()}
	finder := procinfo.New("/proc")
	s.Links, s.Processes, s.Log = r.links, finder, guesttest.Log()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	listeners, err := Listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(listeners) != 2 {
		t.Errorf("%d listeners", len(listeners))
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(ctx, listeners...) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		_ = finder.Close()
	})
	t.Cleanup(r.stop)
	return r
}

// connect begins a new session of the link.
func (r *rig) connect(t *testing.T) {
	t.Helper()
	host, guest := guesttest.Sessions(t)
	in, err := host.Listen(proto.PortNetwork)
	if err != nil {
		t.Fatal(err)
	}
	r.host, r.in = host, in
	r.links.Set(guest)
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, dest string) *net.TCPConn {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(within(t), "tcp", dest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// taken reports whether a new connection is not reset at once.
func taken(t *testing.T, dest string) (*net.TCPConn, bool) {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(within(t), "tcp", dest)
	if errors.Is(err, unix.ECONNRESET) {
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
	_, err = conn.Read(make([]byte, 1))
	return conn.(*net.TCPConn), errors.Is(err, os.ErrDeadlineExceeded)
}

// pairOf connects to dest and returns both ends, with what the host was told.
func (r *rig) pairOf(t *testing.T, dest string) (client *net.TCPConn, host link.Stream, open proto.NetworkOpen) {
	t.Helper()
	client = dial(t, dest)
	host, err := r.in.Accept(within(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	_ = host.SetDeadline(time.Now().Add(20 * time.Second))
	if err := proto.ReadFrame(host, proto.MaxFrame, &open); err != nil {
		t.Fatal(err)
	}
	if err := open.Validate(); err != nil {
		t.Error(err)
	}
	return client, host, open
}

func closeWrite(t *testing.T, c any) {
	t.Helper()
	if err := c.(link.CloseWriter).CloseWrite(); err != nil {
		t.Error(err)
	}
}

// says writes to one side and reads the same from the other.
func says(t *testing.T, from io.Writer, to io.Reader, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Error(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Errorf("%q arrived instead of %q: %v", got, text, err)
	}
}

func ends(t *testing.T, r io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("it ends with %q, %v", rest, err)
	}
}

func isReset(t *testing.T, what string, r io.Reader) {
	t.Helper()
	_, err := io.Copy(io.Discard, r)
	if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, link.ErrReset) {
		t.Errorf("%s: %v", what, err)
	}
}

func TestConnectionsAnywhereReachTheHostWithTheirDestinationAndProcess(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{})
		r.connect(t)
		for _, dest := range []string{
			"100.64.0.5:443", "1.1.1.1:80", "10.0.0.9:22", "192.0.2.1:65535", "[fd00::9]:443", "[2606:4700::1111]:9418", "169.254.169.254:80",
		} {
			client, host, open := r.pairOf(t, dest)
			exe, _ := os.Executable()
			if open.Dest != dest || open.Process.PID != int32(os.Getpid()) || open.Process.Exe != exe || open.Process.Name == "" || len(open.Process.Parents) == 0 {
				t.Errorf("%s: the host is told %+v", dest, open)
			}
			if h := host.Header(); h.Dest != dest || h.Process != open.Process.Name {
				t.Errorf("%s: the header is %+v", dest, h)
			}
			says(t, client, host, "a question")
			says(t, host, client, "an answer")
			closeWrite(t, client)
			ends(t, host)
			says(t, host, client, "an answer after the end")
			closeWrite(t, host)
			ends(t, client)
		}
		client, host, _ := r.pairOf(t, "100.64.0.6:443")
		closeWrite(t, host)
		ends(t, client)
		says(t, client, host, "a question after the end")
		closeWrite(t, client)
		ends(t, host)
	})
}

func TestBothSidesSeeAResetOfTheOther(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{})
		r.connect(t)
		client, host, _ := r.pairOf(t, "100.64.0.5:443")
		says(t, host, client, "x")
		host.(link.Refuser).Refuse()
		isReset(t, "the host gave up", client)

		client, host, _ = r.pairOf(t, "100.64.0.5:443")
		says(t, client, host, "x")
		reset(client)
		isReset(t, "the client gave up", host)

		client, host, _ = r.pairOf(t, "100.64.0.5:443")
		closeWrite(t, client)
		ends(t, host)
		reset(client)
		if _, err := host.Write([]byte("x")); err == nil {
			guesttest.Eventually(t, "the host learns that the client went away after its end", func() bool {
				_, err := host.Write([]byte("x"))
				return errors.Is(err, link.ErrReset) || errors.Is(err, net.ErrClosed)
			})
		}
		if err := r.in.Close(); err != nil {
			t.Fatal(err)
		}
		isReset(t, "the host does not listen", dial(t, "100.64.0.5:443"))
	})
}

// Without a byte of the host's to fail, only the kernel's word tells that the client has gone.
func TestASilentStreamEndsWithItsClient(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{Max: 1})
		r.connect(t)
		client, host, _ := r.pairOf(t, "100.64.0.5:443")
		closeWrite(t, client)
		ends(t, host)
		reset(client)
		guesttest.Eventually(t, "the place is free again", func() bool {
			_, ok := taken(t, "100.64.0.5:443")
			return ok
		})
	})
}

func TestConnectionsToTheProxyItselfAreRefused(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{})
		r.connect(t)
		port := strconv.Itoa(nft.ProxyPort)
		for _, dest := range []string{"127.0.0.1:" + port, "[::1]:" + port} {
			if _, ok := taken(t, dest); ok {
				t.Errorf("%s: it is taken", dest)
			}
		}
		// A destination with the proxy's port is one like any other.
		if _, _, open := r.pairOf(t, "100.64.0.5:"+port); open.Dest != "100.64.0.5:"+port {
			t.Errorf("%+v", open)
		}
	})
}

func TestConnectionsLiveAndDieWithTheirSession(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{})
		early := dial(t, "100.64.0.5:443") // it waits for the link
		r.connect(t)
		st, err := r.in.Accept(within(t))
		if err != nil {
			t.Fatal(err)
		}
		var open proto.NetworkOpen
		if err := proto.ReadFrame(st, proto.MaxFrame, &open); err != nil || open.Dest != "100.64.0.5:443" {
			t.Errorf("%+v, %v", open, err)
		}
		says(t, early, st, "at last")
		if err := r.host.Close(); err != nil {
			t.Fatal(err)
		}
		isReset(t, "the session is over", early)
		early = dial(t, "100.64.0.7:443") // that is not known yet where sessions are given out
		_ = early.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := early.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("it does not wait: %v", err)
		}
		r.connect(t)
		if st, err = r.in.Accept(within(t)); err != nil || st.Header().Dest != "100.64.0.7:443" {
			t.Errorf("%v", err)
		}
		client, host, _ := r.pairOf(t, "100.64.0.5:443")
		says(t, client, host, "in the new session")
	})
}

func TestWithoutALinkConnectionsAreResetAfterAWhile(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		start(t, Server{Wait: 200 * time.Millisecond})
		begin := time.Now()
		isReset(t, "no link", dial(t, "100.64.0.5:443"))
		if took := time.Since(begin); took < 150*time.Millisecond {
			t.Errorf("it waited only %v", took)
		}
	})
}

func TestAFloodIsResetAndTheEndResetsAll(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{Max: 3})
		r.connect(t)
		var clients []*net.TCPConn
		for range 3 {
			c, host, _ := r.pairOf(t, "100.64.0.5:443")
			says(t, host, c, "welcome")
			clients = append(clients, c)
		}
		if _, ok := taken(t, "100.64.0.5:443"); ok {
			t.Error("one too many is taken")
		}
		reset(clients[0])
		guesttest.Eventually(t, "a place is free", func() bool {
			c, ok := taken(t, "100.64.0.5:443")
			clients[0] = c
			return ok
		})
		r.stop()
		for _, c := range clients {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			isReset(t, "the proxy has ended", c)
		}
		var d net.Dialer
		if _, err := d.DialContext(within(t), "tcp", "100.64.0.5:443"); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A connection whose two sides have ended looks to the kernel like one that was given up; what is still in its buffers must arrive.
func TestALongAnswerAfterTheEndArrivesWhole(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{})
		r.connect(t)
		for range 20 {
			client, host, _ := r.pairOf(t, "100.64.0.5:443")
			closeWrite(t, client)
			ends(t, host)
			const size = 600_000 // it fits into the buffers of the kernel
			if _, err := host.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			closeWrite(t, host)
			if _, err := host.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			if n, err := io.Copy(io.Discard, client); n != size || err != nil {
				t.Fatalf("%d bytes arrived: %v", n, err)
			}
		}
	})
}

func TestBulkArrivesAsItWasSentBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{})
		r.connect(t)
		client, host, _ := r.pairOf(t, "100.64.0.5:443")
		_ = client.SetDeadline(time.Now().Add(time.Minute))
		_ = host.SetDeadline(time.Now().Add(time.Minute))
		const size = 64 << 20
		block := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		want := sha256.Sum256(block)
		begin := time.Now()
		var wg sync.WaitGroup
		for _, side := range []io.ReadWriter{client, host} {
			wg.Go(func() {
				if _, err := side.Write(block); err != nil {
					t.Error(err)
				}
				closeWrite(t, side)
			})
			wg.Go(func() {
				sum := sha256.New()
				if n, err := io.Copy(sum, side); n != size || err != nil || [32]byte(sum.Sum(nil)) != want {
					t.Errorf("%d bytes arrived: %v", n, err)
				}
			})
		}
		wg.Wait()
		t.Logf("%d MiB each way in %v", size>>20, time.Since(begin))
	})
}
