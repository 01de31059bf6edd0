package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// mcpCalls is how many calls each case makes, mcpBeside how many of the fast tool, so that a hundred are beyond the 99th percentile, mcpLists how often
// the tools are listed; leastShare is what the gateway must reach of the rate of the SDK's own client and server, mostSlower how much slow
// calls may slow a fast one.
const (
	mcpCalls, mcpBeside, mcpLists = "2000x", "10000x", "20x"
	leastShare, mostSlower        = 0.3, 1.2
)

// mcp measures the gateway for guests without a VM: echo through all three processes beside the SDK's client and server joined directly, a
// fast tool beside slow ones, and a long list of tools. What is compared is measured in turns, in the same processes.
func (b *bench) mcp(ctx context.Context) error {
	binary := filepath.Join(b.tmp, "mcp.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./core/mcp/host")
	build.Dir = b.root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build benchmarks: %w: %s", err, out)
	}
	got := map[string]map[string]float64{}
	for pattern, times := range map[string]string{"Echo": mcpCalls, "BesideSlow": mcpBeside, "ListTools": mcpLists} {
		cmd := exec.CommandContext(ctx, binary, "-test.run", "^$", "-test.bench", pattern, "-test.benchtime", times)
		cmd.Dir = filepath.Join(b.root, "core", "mcp", "host")
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("run benchmarks: %w: %s", err, out)
		}
		for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
			if m := benchLine.FindStringSubmatch(lines.Text()); m != nil {
				got[strings.TrimPrefix(m[1], "Benchmark")] = benchNumbers(m[2])
			}
		}
	}
	for _, n := range []int{1, 10, 50, 200} {
		m := got[fmt.Sprintf("Echo/%d", n)]
		r := row{
			Name: fmt.Sprintf("MCP echo through the gateway, %d in flight", n), Unit: "calls/s", N: 2000, Median: m["gateway-calls/s"],
			Note: fmt.Sprintf("p50 %.1f ms, p99 %.1f ms; direct p50 %.1f ms, p99 %.1f ms", m["gateway-p50-us"]/1000, m["gateway-p99-us"]/1000, m["direct-p50-us"]/1000, m["direct-p99-us"]/1000),
		}
		b.add(r.against("the SDK's client and server over stdio", []float64{m["direct-calls/s"]}).held(RatioAtLeast, leastShare))
	}
	after := got["Echo/200"]
	for _, name := range []string{"gateway", "aggregator", "builtin"} {
		r := newRow("MCP "+name+" RSS", "MB", []float64{after[name+"-MB"]}).noted("After 2,000 calls, 200 in flight.")
		if name == "gateway" {
			r.Note += " The process of the benchmark, with both clients: a worker has the gateway in it."
		}
		b.add(r)
	}
	slow := got["BesideSlow"]
	fast := row{Name: "MCP fast tool beside slow ones, p99", Unit: "ms", N: 10_000, Median: slow["beside-turn-p99-us"] / 1000}
	b.add(fast.against("the fast tool alone, in turns", []float64{slow["alone-turn-p99-us"] / 1000}).held(RatioAtMost, mostSlower).
		noted("Median of the p99 of 20 turns of 500 calls, each beside one of the other. Eight calls of one second run at the same server, in the same session. Of all calls: %.1f and %.1f ms.",
			slow["beside-p99-us"]/1000, slow["alone-p99-us"]/1000))
	b.add(row{Name: "MCP tools/list, 50 servers and 2000 tools", Unit: "ms", N: 20, Median: got["ListTools"]["ns/op"] / 1e6})
	return nil
}

// benchNumbers reads pairs of a number and its unit.
func benchNumbers(text string) map[string]float64 {
	out := map[string]float64{}
	words := strings.Fields(text)
	for i := 0; i+1 < len(words); i += 2 {
		if v, err := strconv.ParseFloat(words[i], 64); err == nil {
			out[words[i+1]] = v
		}
	}
	return out
}
