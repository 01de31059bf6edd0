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

// mcpCalls is how many calls each case makes, mcpLists how often the tools are listed, leastShare what the gateway must reach of the rate of
// the SDK's own client and server, and mostSlower how much a slow tool may slow a fast one.
const (
	mcpCalls, mcpLists     = "2000x", "20x"
	leastShare, mostSlower = 0.3, 1.2
)

// mcp measures the gateway for guests without a VM: echo through all three processes beside the SDK's client and server joined directly, a
// fast tool beside slow ones, and a long list of tools.
func (b *bench) mcp(ctx context.Context) error {
	binary := filepath.Join(b.tmp, "mcp.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./core/mcp/host")
	build.Dir = b.root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build benchmarks: %w: %s", err, out)
	}
	got := map[string]map[string]float64{}
	for pattern, times := range map[string]string{"Echo|BesideSlow": mcpCalls, "ListTools": mcpLists} {
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
		direct, through := got[fmt.Sprintf("Echo/direct/%d", n)], got[fmt.Sprintf("Echo/gateway/%d", n)]
		r := row{
			Name: fmt.Sprintf("MCP echo through the gateway, %d in flight", n), Unit: "calls/s", N: 2000, Median: through["calls/s"],
			Note: fmt.Sprintf("p50 %.1f ms, p99 %.1f ms; direct p50 %.1f ms", through["p50-us"]/1000, through["p99-us"]/1000, direct["p50-us"]/1000),
		}
		b.add(r.against("the SDK's client and server over stdio", []float64{direct["calls/s"]}).held(RatioAtLeast, leastShare))
	}
	alone, beside := got["BesideSlow/slow=0"], got["BesideSlow/slow=8"]
	fast := row{Name: "MCP fast tool beside slow ones, p99", Unit: "ms", N: 2000, Median: beside["p99-us"] / 1000}
	b.add(fast.against("the fast tool alone", []float64{alone["p99-us"] / 1000}).held(RatioAtMost, mostSlower))
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
