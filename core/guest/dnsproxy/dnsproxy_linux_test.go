package dnsproxy

import (
	"bytes"
	"context"
	"encoding/binary"
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

// rig is a dns-proxy in a network like the guest's, with the host at the other end.
type rig struct {
	links *guesttest.Links
	host  link.Session
	in    link.Listener
	stop  func()
}

func start(t *testing.T, s Server) *rig {
	t.Helper()
	nettest.Up(t)
	r := &rig{links: guesttest.NewLinks()}
	finder := procinfo.New("/proc")
	s.Links, s.Processes, s.Log = r.links, finder, guesttest.Log()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	sockets, err := Listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(ctx, sockets) })
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
	in, err := host.Listen(proto.PortDNS)
	if err != nil {
		t.Fatal(err)
	}
	r.host, r.in = host, in
	r.links.Set(guest)
}

func (r *rig) accept(t *testing.T) link.Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	st, err := r.in.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	_ = st.SetDeadline(time.Now().Add(20 * time.Second))
	return st
}

func read(t *testing.T, st link.Stream) proto.DNSQuery {
	t.Helper()
	var q proto.DNSQuery
	if err := proto.ReadFrame(st, proto.MaxFrame, &q); err != nil {
		t.Fatal(err)
	}
	if err := q.Validate(); err != nil {
		t.Error(err)
	}
	return q
}

func reply(t *testing.T, st link.Stream, q proto.DNSQuery, message string) {
	t.Helper()
	if err := proto.WriteFrame(st, proto.DNSReply{ID: q.ID, Message: []byte(message)}); err != nil {
		t.Fatal(err)
	}
}

// query is a question for a host name with its own number in the message.
func query(number uint16, name string) []byte {
	m := binary.BigEndian.AppendUint16(nil, number)
	m = append(m, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(name)))
	m = append(m, name...)
	return append(m, 0, 0, 1, 0, 1)
}

func dial(t *testing.T, network, dest string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: 20 * time.Second}
	c, err := d.DialContext(t.Context(), network, dest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func send(t *testing.T, c net.Conn, message []byte) {
	t.Helper()
	if _, ok := c.(*net.TCPConn); ok {
		message = append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
	}
	if _, err := c.Write(message); err != nil {
		t.Error(err)
	}
}

func receive(t *testing.T, c net.Conn) string {
	t.Helper()
	buf := make([]byte, 70000)
	if _, ok := c.(*net.TCPConn); ok {
		if _, err := io.ReadFull(c, buf[:2]); err != nil {
			t.Error(err)
			return ""
		}
		buf = buf[:binary.BigEndian.Uint16(buf)]
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Error(err)
		}
		return string(buf)
	}
	n, err := c.Read(buf)
	if err != nil {
		t.Error(err)
	}
	return string(buf[:n])
}

// failed checks for SERVFAIL to a query.
func failed(t *testing.T, what, got string, asked []byte) {
	t.Helper()
	if len(got) != len(asked) || got[:2] != string(asked[:2]) || got[2]&0x80 == 0 || got[3]&0xf != serverFailure || got[headerSize:] != string(asked[headerSize:]) {
		t.Errorf("%s: it is answered by %q", what, got)
	}
}

func TestLookupsAnywhereReachTheHostAndAreAnswered(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{})
		r.connect(t)
		var st link.Stream
		for i, dest := range []string{
			"8.8.8.8:53", "127.0.0.1:53", "10.0.0.77:53", "[2001:4860:4860::8888]:53",
			"127.0.0.1:" + strconv.Itoa(nft.DNSPort), "[::1]:" + strconv.Itoa(nft.DNSPort),
		} {
			for _, network := range []string{"udp", "tcp"} {
				c := dial(t, network, dest)
				asked := query(uint16(i), "example")
				send(t, c, asked)
				if st == nil {
					st = r.accept(t)
				}
				q := read(t, st)
				exe, _ := os.Executable()
				if !bytes.Equal(q.Message, asked) || q.TCP != (network == "tcp") || q.Process.PID != int32(os.Getpid()) || q.Process.Exe != exe {
					t.Errorf("%s %s: the host is asked %+v", network, dest, q)
				}
				reply(t, st, q, "the answer is here")
				if got := receive(t, c); got != "the answer is here" {
					t.Errorf("%s %s: answered by %q", network, dest, got)
				}
			}
		}
	})
}

func TestAnswersFindTheirClientsInAnyOrder(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{})
		r.connect(t)
		const clients, each = 20, 10
		conns := make([]net.Conn, clients)
		for i := range conns {
			network := []string{"udp", "tcp"}[i%2]
			conns[i] = dial(t, network, "8.8.8.8:53")
			for n := range each {
				send(t, conns[i], query(uint16(i*100+n), "name"))
			}
		}
		st := r.accept(t)
		queries := make([]proto.DNSQuery, clients*each)
		for i := range queries {
			queries[i] = read(t, st)
		}
		for i := range queries {
			q := queries[(i*7+3)%len(queries)]
			reply(t, st, proto.DNSQuery{ID: q.ID + 1<<30}, "nobody asked for it")
			reply(t, st, q, string(q.Message))
			reply(t, st, q, "the same again")
		}
		for i, c := range conns {
			got := map[uint16]bool{}
			for range each {
				got[binary.BigEndian.Uint16([]byte(receive(t, c)))] = true
			}
			for n := range each {
				if !got[uint16(i*100+n)] {
					t.Errorf("client %d has no answer to query %d", i, n)
				}
			}
		}
	})
}

func TestANewSessionIsAskedAgain(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{})
		c := dial(t, "udp", "8.8.8.8:53")
		send(t, c, query(1, "before"))
		r.connect(t)
		st := r.accept(t)
		first := read(t, st)
		send(t, c, query(2, "second"))
		second := read(t, st)
		reply(t, st, second, "answer to the second")
		if got := receive(t, c); got != "answer to the second" {
			t.Errorf("%q", got)
		}
		old := r.host
		r.connect(t)
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		st = r.accept(t)
		again := read(t, st)
		if again.ID != first.ID || !bytes.Equal(again.Message, first.Message) {
			t.Errorf("asked again is %+v", again)
		}
		send(t, c, query(3, "third"))
		if third := read(t, st); third.ID == second.ID || third.ID == first.ID {
			t.Errorf("then comes %+v", third)
		}
		reply(t, st, again, "answer to the first")
		if got := receive(t, c); got != "answer to the first" {
			t.Errorf("%q", got)
		}
	})
}

func TestLookupsFailInsteadOfWaitingForEver(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{Timeout: 300 * time.Millisecond, Max: 4})
		asked := query(7, "no-link")
		for _, network := range []string{"udp", "tcp"} {
			c := dial(t, network, "8.8.8.8:53")
			send(t, c, asked)
			failed(t, "without a link, over "+network, receive(t, c), asked)
		}
		r.connect(t)
		for _, network := range []string{"udp", "tcp"} {
			c := dial(t, network, "8.8.8.8:53")
			send(t, c, asked)
			failed(t, "a silent host, over "+network, receive(t, c), asked)
		}
		// One more than may wait fails at once, the others after their time.
		c := dial(t, "udp", "8.8.8.8:53")
		for range 5 {
			send(t, c, asked)
		}
		for range 5 {
			failed(t, "too many", receive(t, c), asked)
		}
	})
}

func TestAHostWithoutNamesFailsLookupsAtOnce(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{Timeout: time.Hour})
		r.connect(t)
		st := make(chan struct{})
		go func() {
			defer close(st)
			s, err := r.in.Accept(t.Context())
			if err != nil {
				return
			}
			s.(link.Refuser).Refuse()
		}()
		asked := query(7, "refused")
		c := dial(t, "udp", "8.8.8.8:53")
		send(t, c, asked)
		failed(t, "refused", receive(t, c), asked)
		<-st
		send(t, c, asked) // and the next may succeed
		again := r.accept(t)
		reply(t, again, read(t, again), "the answer is here")
		if got := receive(t, c); got != "the answer is here" {
			t.Errorf("%q", got)
		}
	})
}

func TestAnswersThatCannotBeSentAreFailures(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{})
		r.connect(t)
		c := dial(t, "udp", "8.8.8.8:53")
		asked := query(9, "name")
		send(t, c, []byte("too short"))
		send(t, c, asked)
		st := r.accept(t)
		q := read(t, st)
		if !bytes.Equal(q.Message, asked) {
			t.Errorf("%q is forwarded", q.Message)
		}
		reply(t, st, q, string(make([]byte, maxDatagram+1)))
		failed(t, "longer than a datagram", receive(t, c), asked)
		send(t, c, asked)
		reply(t, st, read(t, st), string(make([]byte, maxDatagram)))
		if got := receive(t, c); len(got) != maxDatagram {
			t.Errorf("%d bytes", len(got))
		}
		send(t, c, asked)
		reply(t, st, read(t, st), "short")
		failed(t, "shorter than a header", receive(t, c), asked)
		send(t, c, asked)
		reply(t, st, read(t, st), "") // nothing comes, and the next is served
		send(t, c, asked)
		reply(t, st, read(t, st), "the answer is here")
		if got := receive(t, c); got != "the answer is here" {
			t.Errorf("%q", got)
		}
		tcp := dial(t, "tcp", "8.8.8.8:53")
		send(t, tcp, asked)
		reply(t, st, read(t, st), string(make([]byte, proto.MaxDNSMessage)))
		if got := receive(t, tcp); len(got) != proto.MaxDNSMessage {
			t.Errorf("%d bytes", len(got))
		}
	})
}

func TestTCPClientsAreBounded(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{})
		r.connect(t)
		bad := dial(t, "tcp", "8.8.8.8:53")
		send(t, bad, []byte("short"))
		if n, err := bad.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Error("a message that is none is answered")
		}
		c, ok := dial(t, "tcp", "8.8.8.8:53").(*net.TCPConn)
		if !ok {
			t.Fatal("not TCP")
		}
		asked := query(1, "half-closed")
		send(t, c, asked)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		st := r.accept(t)
		reply(t, st, read(t, st), "the answer is here")
		if got := receive(t, c); got != "the answer is here" {
			t.Errorf("%q", got)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
		many := dial(t, "tcp", "8.8.8.8:53")
		for i := range maxPipelined + 5 {
			send(t, many, query(uint16(i), "pipelined"))
		}
		for range maxPipelined {
			_ = read(t, st)
		}
		_ = st.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		var q proto.DNSQuery
		if err := proto.ReadFrame(st, proto.MaxFrame, &q); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("one client has more than %d lookups at once: %v", maxPipelined, err)
		}
	})
}

func TestTheEndDoesNotWaitForAnswers(t *testing.T) {
	t.Parallel()
	nettest.Isolated(t, func(t *testing.T) {
		r := start(t, Server{Timeout: time.Hour})
		r.connect(t)
		udp, tcp := dial(t, "udp", "8.8.8.8:53"), dial(t, "tcp", "8.8.8.8:53")
		send(t, udp, query(1, "udp"))
		send(t, tcp, query(2, "tcp"))
		st := r.accept(t)
		_, _ = read(t, st), read(t, st)
		r.stop()
		if _, err := tcp.Read(make([]byte, 1)); err == nil {
			t.Error("something is answered after the end")
		}
		send(t, udp, query(3, "udp"))
		if _, err := udp.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("after the end: %v", err)
		}
	})
}
