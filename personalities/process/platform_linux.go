package process

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"capsem/core/hypervisor"
	"capsem/core/hypervisor/qemu"
	"capsem/core/machine"
)

// platform has QEMU run the VM.
func platform(cfg *machine.Config) {
	home := cfg.Home
	cfg.Driver, cfg.DiskFormat, cfg.Share = qemu.New(qemu.Options{Log: cfg.Log}), hypervisor.QCOW2, true
	cfg.Resolve = func(ctx context.Context, want hypervisor.Accelerator) (hypervisor.Accelerator, string, error) {
		return qemu.Resolve(ctx, home, want)
	}
	cfg.Host = func(_ context.Context, accelerator hypervisor.Accelerator) (string, error) {
		return qemu.StateKey(accelerator)
	}
}

// harden keeps what is in this process from others: QEMU may run as the same user and a guest may break into it.
func harden() error {
	unix.Umask(0o077)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid tracing: %w", err)
	}
	return nil
}
