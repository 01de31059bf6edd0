package process

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"capsem/core/hypervisor"
	"capsem/core/hypervisor/vz"
	"capsem/core/machine"
)

// platform has Virtualization.framework run the VM, which takes raw disks only.
func platform(cfg *machine.Config) {
	cfg.Driver, cfg.DiskFormat = vz.New(vz.Options{Log: cfg.Log}), hypervisor.Raw
	cfg.Resolve = func(context.Context, hypervisor.Accelerator) (hypervisor.Accelerator, string, error) {
		return hypervisor.HVF, "Virtualization.framework", nil
	}
}

// harden keeps what is in this process from others.
func harden() error {
	unix.Umask(0o077)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}
