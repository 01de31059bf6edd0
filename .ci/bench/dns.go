package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	mdns "github.com/miekg/dns"

	"capsem/core/dns"
	"capsem/core/policy"
	"capsem/core/proto"
)

const (
	// lookupNames is how many names are asked for in turn; the first question about each goes to a name server on the loopback.
	lookupNames = 200
	// lookupsAtOnce are on their way at a time.
	lookupsAtOnce = 64
)

// allowed is a judge that allows everything.
type allowed struct{}

func (allowed) Judge(context.Context, *policy.Request) policy.Verdict {
	return policy.Verdict{Effect: policy.Allow, RuleID: "bench", BodyLimit: -1}
}

// uncounted drops events.
type uncounted struct{}

func (uncounted) RecordDNS(dns.Event) {}

// lookups measures the VM's name server over a TCP connection on the loopback, in the guest's own framing.
func (b *bench) lookups(ctx context.Context) error {
	zone, err := startZone(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = zone.Shutdown() }()
	resolver, err := dns.NewResolver(ctx, dns.ResolverConfig{Servers: []string{zone.PacketConn.LocalAddr().String()}})
	if err != nil {
		return fmt.Errorf("make a resolver: %w", err)
	}
	defer resolver.Close()
	server, err := dns.NewServer(dns.Config{VM: "bench", Hostname: "bench", Judge: allowed{}, Recorder: uncounted{}, Resolver: resolver})
	if err != nil {
		return fmt.Errorf("make a name server: %w", err)
	}
	guest, host, err := tcpPair(ctx)
	if err != nil {
		return err
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(ctx, host) })
	defer serving.Wait()
	defer guest.Close()
	queries, err := lookupQueries()
	if err != nil {
		return err
	}
	if err := ask(guest, queries, lookupNames); err != nil { // the first time each name goes upstream
		return err
	}
	const many = 40_000
	var rates []float64
	for range rounds {
		began := time.Now()
		if err := ask(guest, queries, many); err != nil {
			return err
		}
		rates = append(rates, many/time.Since(began).Seconds())
	}
	b.add(newRow("name lookups", "/s", rates).held(AtLeast, 15_000).
		noted("core/dns in this process, over TCP on the loopback: %d names, %d lookups at once, policy and frames included.", lookupNames, lookupsAtOnce))
	return nil
}

// startZone is a name server on the loopback that knows every name.
func startZone(ctx context.Context) (*mdns.Server, error) {
	packets, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for lookups: %w", err)
	}
	started := make(chan struct{})
	s := &mdns.Server{PacketConn: packets, NotifyStartedFunc: func() { close(started) }, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		if q.Question[0].Qtype == mdns.TypeA {
			m.Answer = []mdns.RR{&mdns.A{
				Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 3600}, A: net.IPv4(93, 184, 216, 34),
			}}
		}
		_ = w.WriteMsg(m)
	})}
	failed := make(chan error, 1)
	go func() { failed <- s.ActivateAndServe() }()
	select {
	case <-started:
		return s, nil
	case err := <-failed:
		return nil, fmt.Errorf("serve lookups: %w", err)
	}
}

// tcpPair is a connection on the loopback.
func tcpPair(ctx context.Context) (client, server net.Conn, err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	defer l.Close()
	if client, err = (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String()); err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	if server, err = l.Accept(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("accept: %w", err), client.Close())
	}
	return client, server, nil
}

// lookupQueries are the guest's questions.
func lookupQueries() ([]*proto.DNSQuery, error) {
	var all []*proto.DNSQuery
	for i := range lookupNames {
		m := new(mdns.Msg)
		m.SetQuestion(fmt.Sprintf("n%d.example.com.", i), mdns.TypeA).SetEdns0(1232, false)
		text, err := m.Pack()
		if err != nil {
			return nil, fmt.Errorf("make a question: %w", err)
		}
		all = append(all, &proto.DNSQuery{ID: uint32(i), Message: text, Process: proto.ProcessClaim{PID: 1, Name: "node", Exe: "/usr/bin/node"}})
	}
	return all, nil
}

// ask sends n questions, so many at once, and reads the answers.
func ask(guest net.Conn, queries []*proto.DNSQuery, n int) error {
	under := make(chan struct{}, lookupsAtOnce)
	wrote := make(chan error, 1)
	go func() {
		for i := range n {
			under <- struct{}{}
			if err := proto.WriteFrame(guest, queries[i%len(queries)]); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	var err error
	for range n {
		var reply proto.DNSReply
		if err = proto.ReadFrame(guest, proto.MaxFrame, &reply); err != nil {
			_ = guest.Close() // ends the writer, too
			break
		}
		var m mdns.Msg
		if err = m.Unpack(reply.Message); err != nil || len(m.Answer) != 1 {
			err = errors.Join(fmt.Errorf("a lookup has %d answers", len(m.Answer)), err, guest.Close())
			break
		}
		<-under
	}
	for { // a writer that waits for its turn gets one
		select {
		case <-under:
		case e := <-wrote:
			return errors.Join(err, e)
		}
	}
}
