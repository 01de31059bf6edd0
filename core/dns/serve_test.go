package dns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"capsem/core/policy"
	"capsem/core/proto"
)

// serve runs a server on one end of a pipe and gives the other.
func serve(t testing.TB, s *Server) (net.Conn, context.CancelFunc, chan error) {
	t.Helper()
	guest, host := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, host) }()
	t.Cleanup(func() { cancel(); _ = guest.Close() })
	return guest, cancel, done
}

func TestServeAnswersManyAtOnce(t *testing.T) {
	g := newRig(t, nil, "www.example.org. 30 A 93.184.216.34")
	guest, _, done := serve(t, g.Server)
	const n = 500
	wire := question(t, "www.example.org.", dns.TypeA, nil)
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := range n {
			if err := proto.WriteFrame(guest, &proto.DNSQuery{ID: uint32(i), Message: wire}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	seen := map[uint32]bool{}
	for range n {
		var reply proto.DNSReply
		if err := proto.ReadFrame(guest, proto.MaxFrame, &reply); err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(reply.Message); err != nil || len(m.Answer) != 1 || seen[reply.ID] {
			t.Fatalf("%d: %v %v", reply.ID, m, err)
		}
		seen[reply.ID] = true
	}
	writer.Wait()
	_ = guest.Close()
	if err := <-done; err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
	if got := len(g.events.all()); got != n {
		t.Fatalf("%d events", got)
	}
}

func TestOneSlowNameDoesNotHoldOthers(t *testing.T) {
	g := newRig(t, func(_ *Config, rc *ResolverConfig) { rc.Timeout = time.Hour }, "www.example.org. 30 A 93.184.216.34")
	firstA(t, g.name(t, "www.example.org.", dns.TypeA))
	g.zone.use(func(dns.ResponseWriter, *dns.Msg) {})
	guest, end, done := serve(t, g.Server)
	for i, name := range []string{"slow.example.org.", "www.example.org."} {
		if err := proto.WriteFrame(guest, &proto.DNSQuery{ID: uint32(i), Message: question(t, name, dns.TypeA, nil)}); err != nil {
			t.Fatal(err)
		}
	}
	var reply proto.DNSReply
	if err := proto.ReadFrame(guest, proto.MaxFrame, &reply); err != nil || reply.ID != 1 {
		t.Fatalf("%+v, %v", reply, err)
	}
	end()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestServeEndsAMalformedStream(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"no CBOR":       {0, 0, 0, 3, 0xff, 0xff, 0xff},
		"no length":     {0, 0, 0, 0},
		"too long":      {0xff, 0xff, 0xff, 0xff},
		"empty message": frame(t, &proto.DNSQuery{ID: 1}),
		"a bad process": frame(t, &proto.DNSQuery{ID: 1, Message: []byte{1}, Process: proto.ProcessClaim{PID: -1}}),
	} {
		g := newRig(t, nil)
		guest, _, done := serve(t, g.Server)
		_, _ = guest.Write(bytes)
		if err := <-done; err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := guest.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: the stream is open: %v", name, err)
		}
	}
}

func frame(t testing.TB, v any) []byte {
	t.Helper()
	body, err := proto.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{0, 0, 0, byte(len(body))}, body...)
}

// slowJudge counts how many ask it at once, and lets nobody go before it is told.
type slowJudge struct {
	in      chan struct{}
	release chan struct{}
}

func (j *slowJudge) Judge(ctx context.Context, _ *policy.Request) policy.Verdict {
	j.in <- struct{}{}
	select {
	case <-j.release:
	case <-ctx.Done():
	}
	return policy.Verdict{Effect: policy.Deny}
}

func TestNoMoreLookupsAreReadThanMayRun(t *testing.T) {
	judge := &slowJudge{in: make(chan struct{}, 100), release: make(chan struct{})}
	g := newRig(t, func(c *Config, _ *ResolverConfig) { c.Judge, c.Concurrent = judge, 4 })
	guest, end, done := serve(t, g.Server)
	sent := make(chan int, 1)
	go func() {
		n := 0
		for ; ; n++ {
			// Nearly as large as a frame may be, so that what is buffered on the way does not count.
			q := &proto.DNSQuery{ID: uint32(n), Message: append(question(t, fmt.Sprintf("n%d.test.", n), dns.TypeA, nil), make([]byte, 60000)...)}
			if n < 4 {
				q.Message = question(t, "held.test.", dns.TypeA, nil)
			}
			if proto.WriteFrame(guest, q) != nil {
				break
			}
		}
		sent <- n
	}()
	for range 4 {
		<-judge.in
	}
	_ = guest.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	if n := <-sent; n > 4+4 {
		t.Errorf("%d lookups were taken where 4 may run", n)
	}
	end()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestServeEndsWhenTheGuestDoesNotRead(t *testing.T) {
	g := newRig(t, nil)
	guest, end, done := serve(t, g.Server)
	wire := question(t, "refused.test.", dns.TypeA, nil)
	_ = guest.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for i := uint32(0); ; i++ {
		if proto.WriteFrame(guest, &proto.DNSQuery{ID: i, Message: wire}) != nil {
			break
		}
	}
	end()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
