package dns

import (
	"net"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"capsem/core/proto"
)

// noEvents counts only.
type noEvents struct{}

func (noEvents) RecordDNS(Event) {}

// BenchmarkServe is whole lookups over an in-memory stream, 64 on their way at once: frames both ways, policy, table, messages.
func BenchmarkServe(b *testing.B) {
	for name, host := range map[string]string{"cached": "www.example.org.", "refused": "www.refused.test."} {
		b.Run(name, func(b *testing.B) {
			g := newRig(b, func(c *Config, _ *ResolverConfig) { c.Recorder = noEvents{} }, "www.example.org. 30 A 93.184.216.34")
			guest, _, _ := serve(b, g.Server)
			q := &proto.DNSQuery{
				Message: question(b, host, dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) }),
				Process: proto.ProcessClaim{PID: 1, Name: "node", Exe: "/usr/bin/node", CommandLine: "node index.js --port 80", Parents: []string{"bash", "init"}},
			}
			b.ReportAllocs()
			b.ResetTimer()
			flood(b, guest, q)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rps")
		})
	}
}

func flood(b *testing.B, guest net.Conn, q *proto.DNSQuery) {
	b.Helper()
	inFlight := make(chan struct{}, 64)
	var writer sync.WaitGroup
	writer.Go(func() {
		for range b.N {
			inFlight <- struct{}{}
			if err := proto.WriteFrame(guest, q); err != nil {
				b.Error(err)
				return
			}
		}
	})
	for range b.N {
		var reply proto.DNSReply
		if err := proto.ReadFrame(guest, proto.MaxFrame, &reply); err != nil {
			b.Fatal(err)
		}
		<-inFlight
	}
	writer.Wait()
}
