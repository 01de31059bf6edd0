package service

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"capsem/core/api"
	"capsem/core/buildinfo"
	"capsem/core/entry"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/service/servicetest"
)

// TestMain lets this binary be the daemon, with images that are only pretended, and a worker without a VM.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case workerName:
		os.Exit(servicetest.Worker(os.Args[1:]))
	case "capsem-service":
		if v := os.Getenv("LANG"); v != "" {
			buildinfo.Version = v
		}
		env := entry.Env{Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Log: slog.New(slog.DiscardHandler)}
		err := runWith(context.Background(), env, pretended())
		if line := fault.Line(err); line != "" {
			fmt.Fprintln(os.Stderr, "capsem:", line)
		}
		os.Exit(fault.ExitCode(err))
	}
	os.Exit(m.Run())
}

func pretended() parts {
	return parts{
		func(context.Context, paths.Home, *slog.Logger) func() (string, error) {
			return func() (string, error) { return "test", nil }
		},
		func(paths.Home) func() api.AssetHealth {
			return func() api.AssetHealth { return api.AssetHealth{Ready: true} }
		},
		func(context.Context, paths.Home, *slog.Logger, *sync.WaitGroup) func() string {
			return func() string { return "none" }
		},
		nil,
	}
}
