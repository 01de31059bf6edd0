package host_test

import (
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp/gateway"
)

// joined is the SDK's own client and server, over a process's standard input and output: what the gateway is compared with.
func joined(b *testing.B) *sdk.ClientSession {
	b.Helper()
	c := sdk.NewClient(&sdk.Implementation{Name: "bench", Version: "1"}, nil)
	s, err := c.Connect(b.Context(), &sdk.CommandTransport{Command: exec.CommandContext(b.Context(), exe(b), "server", "all")}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// measure makes b.N calls, so many at once, and reports how many a second there are and how long they take.
func measure(b *testing.B, s *sdk.ClientSession, tool string, in args, inFlight int) {
	b.Helper()
	times := make([]time.Duration, b.N)
	next := make(chan int)
	var all sync.WaitGroup
	b.ResetTimer()
	for range inFlight {
		all.Go(func() {
			for i := range next {
				began := time.Now()
				if res, err := s.CallTool(b.Context(), &sdk.CallToolParams{Name: tool, Arguments: in}); err != nil || res.IsError {
					b.Error(err)
				}
				times[i] = time.Since(began)
			}
		})
	}
	for i := range b.N {
		next <- i
	}
	close(next)
	all.Wait()
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-us")
}

// BenchmarkEcho is echo through the gateway, without a VM, beside the SDK's client and server joined directly.
func BenchmarkEcho(b *testing.B) {
	for _, n := range []int{1, 10, 50, 200} {
		b.Run(fmt.Sprintf("direct/%d", n), func(b *testing.B) { measure(b, joined(b), "echo", args{"text": "hello"}, n) })
		b.Run(fmt.Sprintf("gateway/%d", n), func(b *testing.B) {
			r := newRig(b, "")
			r.up("local", true)
			measure(b, r.client(nil), "local__echo", args{"text": "hello"}, n)
		})
	}
}

// BenchmarkBesideSlow is a fast tool alone, and while slow calls of the same server run.
func BenchmarkBesideSlow(b *testing.B) {
	for _, slow := range []int{0, 8} {
		b.Run(fmt.Sprintf("slow=%d", slow), func(b *testing.B) {
			r := newRig(b, "", program(b, "test", "all"))
			r.up("test", true)
			if _, err := r.pins.Approve("test", ""); err != nil {
				b.Fatal(err)
			}
			s, other := r.client(nil), r.client(nil)
			eventually(b, func() bool { return len(names(b, s)) > 15 })
			over := make(chan struct{})
			var running sync.WaitGroup
			for range slow {
				running.Go(func() {
					for {
						select {
						case <-over:
							return
						default:
							_, _ = other.CallTool(b.Context(), &sdk.CallToolParams{Name: "test__sleep"})
						}
					}
				})
			}
			measure(b, s, "test__echo", args{"text": "hello"}, 4)
			close(over)
			running.Wait()
		})
	}
}

// BenchmarkListTools lists 2,000 tools of 50 servers.
func BenchmarkListTools(b *testing.B) {
	r := &rig{t: b, dir: b.TempDir()}
	pins := approvedPins(b, r.dir)
	r.gateway = gateway.New(gateway.Config{VM: "vm", Judge: r, Record: r.record, Pins: pins, Log: quiet()})
	offerMany(r.gateway, 50, 40)
	for i := range 50 {
		if _, err := pins.Approve(fmt.Sprintf("server-%02d", i), ""); err != nil {
			b.Fatal(err)
		}
	}
	s := r.client(nil)
	eventually(b, func() bool { return len(names(b, s)) == 2000 })
	b.ResetTimer()
	for b.Loop() {
		if n := len(names(b, s)); n != 2000 {
			b.Fatalf("%d tools", n)
		}
	}
}
