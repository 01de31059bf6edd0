package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// size records how large the binary is.
func (b *bench) size(context.Context) error {
	info, err := os.Stat(b.capsem)
	if err != nil {
		return fmt.Errorf("stat the binary: %w", err)
	}
	b.add(newRow("binary size", "MB", []float64{float64(info.Size()) / 1e6}).noted("Stripped, both guest agents embedded."))
	return nil
}

// start compares "capsem version" with the least a static Go program needs, one of each in turn.
func (b *bench) start(ctx context.Context) error {
	hello := filepath.Join(b.tmp, "hello")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", hello, "./.ci/bench/hello")
	build.Dir, build.Env = b.root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the baseline: %w: %s", err, out)
	}
	var ours, least []float64
	for range 41 {
		d, err := timed(ctx, hello)
		if err != nil {
			return err
		}
		least = append(least, d)
		if d, err = timed(ctx, b.capsem, "version", "--json"); err != nil {
			return err
		}
		ours = append(ours, d)
	}
	// The first of each only warms the page cache.
	b.add(newRow("capsem version", "ms", ours[1:]).against("a static Go program that prints a line", least[1:]).
		held(AtMost, 20).noted("From fork to exit, no service running."))
	return nil
}

// timed runs a program with an empty CAPSEM_HOME and returns how long it took, in milliseconds.
func timed(ctx context.Context, name string, args ...string) (float64, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"CAPSEM_HOME=" + filepath.Join(os.TempDir(), "capsem-bench-none"), "PATH=" + os.Getenv("PATH")}
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("run %s: %w: %s", filepath.Base(name), err, out)
	}
	return millis(took), nil
}
