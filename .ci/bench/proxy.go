package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"capsem/core/mitm/authority"
)

// proxyRequests measures small kept-alive requests through the proxy, against a bare httputil.ReverseProxy and Debian's mitmproxy.
func (b *bench) proxyRequests(ctx context.Context) error {
	got, err := b.proxyBenchmarks(ctx, "SmallRequests", "5000x")
	if err != nil {
		return err
	}
	for _, proto := range []string{"h1", "h2"} {
		for _, conns := range []string{"1", "10", "50", "200"} {
			at := "BenchmarkSmallRequests/" + proto + "/" + conns
			b.add(newRow("proxy: "+proto+", "+conns+" connections", "req/s", got[at+"/capsem"]["req/s"]).
				against("bare ReverseProxy", got[at+"/bare"]["req/s"]).held(RatioAtLeast, 0.7).
				noted("core/mitm with policy, record (not written) and checks; client, proxy and upstream in one process, TLS on both sides."))
			for _, p := range []string{"p50-ms", "p99-ms"} {
				b.add(newRow("proxy: "+proto+", "+conns+" connections, "+p, "ms", got[at+"/capsem"][p]).against("bare ReverseProxy", got[at+"/bare"][p]))
			}
		}
	}
	rival, err := b.rivalRates(ctx, 50)
	if err != nil {
		return err
	}
	b.add(newRow("proxy: h1, 50 connections, other proxy", "req/s", got["BenchmarkSmallRequests/h1/50/capsem"]["req/s"]).
		against("mitmproxy", rival).held(RatioAtLeast, 10))
	return nil
}

// proxyBodies measures long bodies through the proxy, and how soon the first event of a stream arrives.
func (b *bench) proxyBodies(ctx context.Context) error {
	got, err := b.proxyBenchmarks(ctx, "Bodies|FirstEvent", "3x")
	if err != nil {
		return err
	}
	for _, proto := range []string{"h1", "h2"} {
		for _, what := range []string{"down/10MiB", "down/1024MiB", "up/10MiB"} {
			at := "BenchmarkBodies/" + proto + "/" + what
			b.add(newRow("proxy: "+proto+", "+what, "MB/s", got[at+"/capsem"]["MB/s"]).against("bare ReverseProxy", got[at+"/bare"]["MB/s"]).
				held(RatioAtLeast, 0.8))
		}
		at := "BenchmarkBodies/" + proto + "/down/"
		b.add(newRow("proxy: "+proto+", memory after 1 GiB", "MiB", got[at+"1024MiB/capsem"]["RSS-MiB"]).
			against("after 10 MiB", got[at+"10MiB/capsem"]["RSS-MiB"]).held(RatioAtMost, 1.5).noted("the whole process: client, proxies, upstream."))
	}
	var added []float64
	ours, bare := got["BenchmarkFirstEvent/capsem"]["ns/op"], median(got["BenchmarkFirstEvent/bare"]["ns/op"])
	for _, ns := range ours {
		added = append(added, max(ns-bare, 0)/1e6)
	}
	b.add(newRow("proxy: first event, added", "ms", added).held(AtMost, 3).noted("over what a bare ReverseProxy takes, new connections included."))
	return nil
}

// benchLine is a line of go test's: name, runs, then numbers with units.
var benchLine = regexp.MustCompile(`^(Benchmark\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)

// proxyBenchmarks runs benchmarks of core/mitm and gives their samples by name and unit.
func (b *bench) proxyBenchmarks(ctx context.Context, pattern, times string) (map[string]map[string][]float64, error) {
	return b.goBenchmarks(ctx, pattern, times, "./core/mitm")
}

// goBenchmarks runs benchmarks of packages.
func (b *bench) goBenchmarks(ctx context.Context, pattern, times string, packages ...string) (map[string]map[string][]float64, error) {
	args := []string{"test", "-run", "^$", "-bench", pattern, "-benchtime", times, "-count", strconv.Itoa(rounds), "-timeout", "30m", "-p", "1"}
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Dir, cmd.Stderr = b.root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go test -bench %s: %w: %.500s", pattern, err, out)
	}
	got := map[string]map[string][]float64{}
	for line := range strings.Lines(string(out)) {
		m := benchLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		if got[m[1]] == nil {
			got[m[1]] = map[string][]float64{}
		}
		words := strings.Fields(m[2])
		for i := 0; i+1 < len(words); i += 2 {
			if v, err := strconv.ParseFloat(words[i], 64); err == nil {
				got[m[1]][words[i+1]] = append(got[m[1]][words[i+1]], v)
			}
		}
	}
	if len(got) == 0 {
		return nil, fmt.Errorf("go test -bench %s measured nothing: %.500s", pattern, out)
	}
	return got, nil
}

// rivalRates is mitmproxy before the same kind of upstream.
func (b *bench) rivalRates(ctx context.Context, conns int) ([]float64, error) {
	dir, err := os.MkdirTemp(b.tmp, "hosts-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	hosts, err := authority.LoadOrCreate(dir)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello, world") }))
	up.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return hosts.Leaf("localhost") }}
	up.StartTLS()
	defer up.Close()
	_, port, err := net.SplitHostPort(up.Listener.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("find the upstream: %w", err)
	}
	return b.mitmproxyRates(ctx, "localhost:"+port, filepath.Join(dir, "ca.pem"), conns)
}
