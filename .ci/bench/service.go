package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"capsem/core/api"
	"capsem/core/paths"
)

// imageHome is where the benchmarks keep the image they boot between runs, outside the repository.
func imageHome() (paths.Home, error) {
	if dir := os.Getenv("CAPSEM_BENCH_HOME"); dir != "" {
		return paths.Home(dir), nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	return paths.Home(filepath.Join(cache, "capsem-bench")), nil
}

// cli runs capsem in the home of the benchmarks and returns what it printed.
func (b *bench) cli(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, b.capsem, args...)
	cmd.Env = append(os.Environ(), "CAPSEM_HOME="+b.home.Dir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("capsem %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// serve builds the image where it is not current, and starts a service. Only the first call does anything.
func (b *bench) serve(ctx context.Context) error {
	if b.api != nil {
		return nil
	}
	home, err := imageHome()
	if err != nil {
		return err
	}
	b.home = home
	// With dev there are npm and a compiler to be timed; with none the image is the one that is there.
	if profile := cmp.Or(os.Getenv("CAPSEM_BENCH_PROFILE"), "minimal"); profile != "none" {
		if _, err := b.cli(ctx, "assets", "build", "--profile", profile); err != nil {
			return err
		}
	}
	if _, err := b.cli(ctx, "service", "start"); err != nil {
		return err
	}
	b.api = newLocalAPI(home.ServiceSocket())
	var status api.ServiceStatus
	if err := b.api.call(ctx, http.MethodGet, "/status", nil, &status); err != nil {
		return err
	}
	b.service = status.PID
	b.report.Machine.Accelerator, b.report.Machine.Assets = status.Accelerator, status.Assets.Version
	b.report.Machine.Version = status.Version
	return nil
}

// vm returns a running VM of the default size, the same for all benchmarks that need one.
func (b *bench) vm(ctx context.Context) (api.SandboxInfo, error) {
	var info api.SandboxInfo
	if err := b.serve(ctx); err != nil {
		return info, err
	}
	if b.vmID == "" {
		var reply api.ProvisionReply
		if err := b.api.call(ctx, http.MethodPost, "/provision", api.ProvisionRequest{Cold: true}, &reply); err != nil {
			return info, err
		}
		b.vmID = reply.ID
	}
	err := b.api.call(ctx, http.MethodGet, "/info/"+b.vmID, nil, &info)
	b.report.Machine.Carrier = info.Carrier
	return info, err
}

// close deletes the VM and stops the service, with a context of its own so that an interrupt does not leave them behind.
func (b *bench) close(ctx context.Context) {
	if b.api != nil {
		if b.vmID != "" {
			if err := b.api.call(ctx, http.MethodDelete, "/delete/"+b.vmID, nil, nil); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		}
		if _, err := b.cli(ctx, "service", "stop"); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	if err := os.RemoveAll(b.tmp); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}
