// Command bench measures capsem as a user meets it and prints medians, each with its baseline from the same run.
// It works in a CAPSEM_HOME of its own in the user's cache directory and writes dist/bench/latest.json. Run it by "go tool task bench"; words after -- pick benchmarks by a part of their name.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"capsem/core/paths"
)

// bench is what the benchmarks share.
type bench struct {
	// root is the top of the repository, capsem the binary, tmp a directory that is removed at the end.
	root, capsem, tmp string
	report            report
	// home, api and service (its process id) are set by serve; vmID by vm.
	home    paths.Home
	api     *localAPI
	service int
	vmID    string
}

// benchmark is one group of measurements.
type benchmark struct {
	name string
	run  func(b *bench, ctx context.Context) error
}

// benchmarks in the order they run.
var benchmarks = []benchmark{
	{"size", (*bench).size},
	{"start", (*bench).start},
	{"memory", (*bench).memory},
	{"exec", (*bench).execRoundTrip},
	{"cold", (*bench).cold},
	{"warm", (*bench).warm},
	{"save", (*bench).save},
	{"copy", (*bench).copyWorkspace},
	{"idle", (*bench).idleCPU},
	{"workspace", (*bench).workspace},
	{"trees", (*bench).trees},
	{"snapshots", (*bench).snapshots},
	{"mcp", (*bench).mcp},
	{"mcp-vm", (*bench).mcpVM},
	{"throughput", (*bench).throughput},
	{"exec-many", (*bench).execMany},
	{"proxy: requests", (*bench).proxyRequests},
	{"proxy: bodies", (*bench).proxyBodies},
	{"proxy: a VM", (*bench).proxyVM},
	{"parts: certificates", (*bench).minting},
	{"parts: policy", (*bench).verdicts},
	{"parts: names", (*bench).lookups},
	{"parts: ledger", (*bench).ledgerEvents},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only []string) error {
	b, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		b.close(cleanup)
	}()
	for _, m := range benchmarks {
		if len(only) > 0 && !slices.ContainsFunc(only, func(o string) bool { return strings.Contains(m.name, o) }) {
			continue
		}
		began := time.Now()
		fmt.Printf("%s ...", m.name)
		if err := m.run(b, ctx); err != nil {
			b.report.Failed = append(b.report.Failed, fmt.Sprintf("%s: %v", m.name, err))
		}
		fmt.Printf(" %.1fs\n", time.Since(began).Seconds())
	}
	if err := b.report.show(os.Stdout); err != nil {
		return err
	}
	if err := b.report.write(filepath.Join(b.root, "dist", "bench", "latest.json")); err != nil {
		return err
	}
	if len(b.report.Failed) > 0 {
		return errors.New("not everything could be measured")
	}
	return nil
}

func newBench(ctx context.Context) (*bench, error) {
	dir, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	b := &bench{root: strings.TrimSpace(string(dir)), report: report{Time: time.Now().UTC(), Machine: thisMachine()}}
	b.capsem = filepath.Join(b.root, "dist", "bin", "capsem")
	if _, err := os.Stat(b.capsem); err != nil {
		return nil, fmt.Errorf("no binary (run go tool task build): %w", err)
	}
	if b.tmp, err = os.MkdirTemp("", "capsem-bench-"); err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	return b, nil
}

// add records rows with what follows from their numbers.
func (b *bench) add(rows ...row) {
	for _, r := range rows {
		r.Verdict, r.Ratio = r.verdict(), r.ratio()
		b.report.Rows = append(b.report.Rows, r)
	}
}
