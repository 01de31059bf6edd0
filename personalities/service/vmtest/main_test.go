//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/personalities/process"
	"capsem/personalities/service"
)

// TestMain lets this binary be the daemon and its workers.
func TestMain(m *testing.M) {
	run := map[string]entry.Run{"capsem-service": service.Run, "capsem-process": process.Run}[filepath.Base(os.Args[0])]
	if run == nil {
		os.Exit(m.Run())
	}
	err := run(context.Background(), entry.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Log: slog.New(slog.DiscardHandler),
	})
	if line := fault.Line(err); line != "" {
		fmt.Fprintln(os.Stderr, "capsem:", line)
	}
	os.Exit(fault.ExitCode(err))
}
