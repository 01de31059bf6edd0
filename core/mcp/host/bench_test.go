package host_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

// lane is one of the things that are compared: calls of a tool, and what goes on beside them.
type lane struct {
	name    string
	session *sdk.ClientSession
	tool    string
	// beside begins what goes on beside the calls, and gives what ends it; nil is nothing.
	beside func() (end func())
	times  []time.Duration
	spent  time.Duration
	// worst are the 99th percentiles of the turns: their median is the same whatever else the machine does in some of them.
	worst []time.Duration
}

// burst makes so many calls, so many of them at once.
func (l *lane) burst(b *testing.B, calls, inFlight int) {
	b.Helper()
	if l.beside != nil {
		end := l.beside()
		defer end()
	}
	times := make([]time.Duration, calls)
	var next atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for range inFlight {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(calls); i = next.Add(1) - 1 {
				began := time.Now()
				if res, err := l.session.CallTool(b.Context(), &sdk.CallToolParams{Name: l.tool, Arguments: args{"text": "hello"}}); err != nil || res.IsError {
					b.Error(err)
				}
				times[i] = time.Since(began)
			}
		})
	}
	all.Wait()
	l.spent += time.Since(start)
	l.times = append(l.times, times...)
	slices.Sort(times)
	l.worst = append(l.worst, times[len(times)*99/100])
}

// compare makes b.N calls of each lane, in turns of a few hundred, so that whatever else the machine does meets all of them; what is
// first done in processes that have just started is not counted.
func compare(b *testing.B, inFlight int, lanes ...*lane) {
	b.Helper()
	const turn = 500
	for _, l := range lanes {
		l.burst(b, turn, inFlight)
		l.times, l.spent, l.worst = nil, 0, nil
	}
	b.ResetTimer()
	for left := b.N; left > 0; left -= turn {
		for _, l := range lanes {
			l.burst(b, min(left, turn), inFlight)
		}
		slices.Reverse(lanes)
	}
	b.StopTimer()
	for _, l := range lanes {
		slices.Sort(l.times)
		slices.Sort(l.worst)
		b.ReportMetric(float64(len(l.times))/l.spent.Seconds(), l.name+"-calls/s")
		b.ReportMetric(float64(l.times[len(l.times)/2].Microseconds()), l.name+"-p50-us")
		b.ReportMetric(float64(l.times[len(l.times)*99/100].Microseconds()), l.name+"-p99-us")
		b.ReportMetric(float64(l.worst[len(l.worst)/2].Microseconds()), l.name+"-turn-p99-us")
	}
}

// BenchmarkEcho is echo through the gateway, without a VM, beside the SDK's client and server joined directly.
func BenchmarkEcho(b *testing.B) {
	for _, n := range []int{1, 10, 50, 200} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			r := newRig(b, "")
			r.up("local", true)
			compare(b, n, &lane{name: "direct", session: joined(b), tool: "echo"}, &lane{name: "gateway", session: r.client(nil), tool: "local__echo"})
			for name, pid := range map[string]int{"aggregator": r.pidOf(b, "capsem-mcp-aggregator"), "builtin": r.pidOf(b, "capsem-mcp-builtin")} {
				b.ReportMetric(residentMB(b, pid), name+"-MB")
			}
			b.ReportMetric(residentMB(b, os.Getpid()), "gateway-MB")
		})
	}
}

// BenchmarkBesideSlow is a fast tool alone, and while slow calls of the same server and session run.
func BenchmarkBesideSlow(b *testing.B) {
	const slow = 8
	r := newRig(b, "", program(b, "test", "all"))
	r.up("test", true)
	if _, err := r.pins.Approve("test", ""); err != nil {
		b.Fatal(err)
	}
	s := r.client(nil)
	eventually(b, func() bool { return len(names(b, s)) > 15 })
	sleepers := func() (end func()) {
		ctx, cancel := context.WithCancel(b.Context())
		var running sync.WaitGroup
		for range slow {
			running.Go(func() {
				for ctx.Err() == nil {
					_, _ = s.CallTool(ctx, &sdk.CallToolParams{Name: "test__sleep"}) // of one second, or cancelled
				}
			})
		}
		eventually(b, func() bool { return r.running("test") == slow })
		return func() { cancel(); running.Wait(); eventually(b, func() bool { return r.running("test") == 0 }) }
	}
	compare(b, 4, &lane{name: "alone", session: s, tool: "test__echo"}, &lane{name: "beside", session: s, tool: "test__echo", beside: sleepers})
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

// pidOf finds the process that the rig has started under a name.
func (r *rig) pidOf(b testing.TB, name string) (pid int) {
	b.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		b.Fatal(err)
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for child := range strings.FieldsSeq(string(text)) {
			line, err := os.ReadFile(filepath.Join("/proc", child, "cmdline"))
			if err == nil && strings.HasPrefix(string(line), name+"\x00") {
				pid, _ = strconv.Atoi(child)
			}
		}
	}
	if pid == 0 {
		b.Fatal("no process is called " + name)
	}
	return pid
}

// residentMB is the resident memory of a process.
func residentMB(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib * 1024 / 1e6
}
