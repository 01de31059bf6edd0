package servicetest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/config"
	"capsem/core/guard"
	"capsem/core/paths"
	"capsem/core/service"
)

// Home is a fresh CAPSEM_HOME with a short path. At the end of the test every fake worker that is left is killed.
func Home(t testing.TB) paths.Home {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "svc") //nolint:usetesting // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	home := paths.Home(dir)
	t.Cleanup(func() {
		locks, _ := filepath.Glob(filepath.Join(home.Instances(), "*.lock"))
		for _, path := range locks {
			if pid, held, err := guard.Holder(path); err == nil && held && pid > 1 && pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		_ = os.RemoveAll(dir)
	})
	return home
}

// Options are those of a service whose workers are fakes.
func Options(t testing.TB, home paths.Home) service.Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return service.Options{
		Home: home, Log: slog.New(slog.DiscardHandler), Worker: []string{self},
		WorkerEnv: []string{"GORACE=atexit_sleep_ms=0"}, // under the race detector a process would take a second to exit
		Settings: func() (*config.Settings, error) {
			return &config.Settings{
				VM:  config.VM{CPUs: 2, RAMMB: 512, DiskMB: 2048, MaxVMs: 4, Accelerator: "tcg", ReadyTimeout: 20 * time.Second},
				Log: config.Log{Level: "info"},
			}, nil
		},
		AssetVersion: func() (string, error) { return "test", nil },
		AssetHealth:  func() api.AssetHealth { return api.AssetHealth{Ready: true, Version: "test"} },
		Accelerator:  func() string { return "tcg (a test)" },
	}
}

// Start starts a service with fake workers. The test binary's TestMain must call Worker when it was started as one. The service
// is closed at the end of the test, or earlier by the function returned.
func Start(t testing.TB, opts service.Options) (*service.Service, func()) {
	t.Helper()
	if err := service.OwnHome(opts.Home); err != nil {
		t.Fatal(err)
	}
	s, err := service.New(context.Background(), opts) //nolint:forbidigo // outlives the test's own context, for clean-up
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, s.Close
}

// IsWorker reports whether a test binary was started as a worker.
func IsWorker(args []string) bool { return len(args) > 1 && args[1] == "--home" }
