package main

import (
	"context"
	"strings"
)

// proxyEverything measures the proxy with credentials, model calls, budgets and detectors beside the same with only its policy. The two take turns
// within each sample, so the ratios hold on a busy machine too.
func (b *bench) proxyEverything(ctx context.Context) error {
	got, err := b.goBenchmarks(ctx, "^BenchmarkEverything$", "5x", "./core/machine")
	if err != nil {
		return err
	}
	for _, proto := range []string{"h1", "h2"} {
		for _, what := range []string{"small", "model call of 140 KB", "text of 1 MiB down", "text of 1 MiB up"} {
			samples := got["BenchmarkEverything/"+proto+"/"+strings.ReplaceAll(what, " ", "_")]
			name := "proxy, everything on: " + proto + ", " + what
			b.add(
				newRow(name, "req/s", samples["req/s"]).noted("core/mitm with all modifiers of a VM, three credentials and a budget; client, proxy and host in one process, TLS on both sides."),
				newRow(name+", beside only the policy", "x", samples["x"]).held(AtLeast, 0.8).noted("by the time, in turns."),
				newRow(name+", processors", "x", samples["x-cpu"]).held(AtLeast, 0.8).noted("by the time of the processors, client and host included."),
			)
		}
	}
	return nil
}

// inspection measures what looks into bodies, and the check of a budget.
func (b *bench) inspection(ctx context.Context) error {
	got, err := b.goBenchmarks(ctx, "^Benchmark(Outgoing|Incoming|Stream|Answer|Request|Check)$", "200ms",
		"./core/detect", "./core/detect/match", "./core/inspect/model", "./core/inspect/sse", "./core/budget")
	if err != nil {
		return err
	}
	for _, part := range []struct{ name, bench string }{
		{"detectors of what goes out", "Outgoing"},
		{"detectors of what comes in", "Incoming"},
		{"reading of requests to models", "Request"},
		{"SSE pipeline: events, JSON, usage", "Answer"},
	} {
		b.add(newRow(part.name, "MB/s", got["Benchmark"+part.bench]["MB/s"]).noted("in this process, one thread."))
	}
	var each []float64
	for _, ns := range got["BenchmarkCheck"]["ns/op"] {
		each = append(each, ns/1000)
	}
	b.add(newRow("budget check", "us", each).held(AtMost, 10).noted("a reservation and its settlement, each written under the lock of all processes."))
	return nil
}
