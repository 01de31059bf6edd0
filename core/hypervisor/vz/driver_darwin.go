package vz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"

	"github.com/Code-Hex/vz/v3"
	"golang.org/x/sys/unix"

	"capsem/core/fault"
	"capsem/core/hypervisor"
)

// Options are what all machines of a driver share.
type Options struct {
	// Log takes what the machines do; nil logs nothing.
	Log *slog.Logger
}

type driver struct{ log *slog.Logger }

// New returns the driver.
func New(opts Options) hypervisor.Driver {
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &driver{log}
}

// Name is "vz".
func (d *driver) Name() string { return "vz" }

// Capabilities depend on the system's version.
func (d *driver) Capabilities(context.Context) (hypervisor.Capabilities, error) {
	version, err := unix.Sysctl("kern.osproductversion")
	if err != nil {
		return hypervisor.Capabilities{}, fmt.Errorf("name macOS version: %w", err)
	}
	return hypervisor.Capabilities{
		Pause: true, SaveRestore: canSave(), Accelerators: []hypervisor.Accelerator{hypervisor.HVF}, Version: "macOS " + version,
	}, nil
}

// Create prepares a machine; it runs after Start.
func (d *driver) Create(ctx context.Context, spec hypervisor.Spec) (hypervisor.Machine, error) {
	if err := check(spec); err != nil {
		return nil, err
	}
	m := &machine{log: d.log.With("vm", spec.Name), calls: make(chan struct{}, 1), down: make(chan struct{})}
	config, err := m.configure(spec)
	if err == nil {
		m.vm, err = vz.NewVirtualMachine(config)
	}
	if err != nil {
		m.console.close()
		return nil, fmt.Errorf("create machine: %w", err)
	}
	if ctx.Err() != nil {
		m.console.close()
		return nil, fmt.Errorf("create machine: %w", context.Cause(ctx))
	}
	// Subscribed before Start: a state that came earlier would be missed.
	states := m.vm.StateChangedNotify()
	go m.supervise(states)
	return m, nil
}

func check(s hypervisor.Spec) error {
	switch {
	case s.Kernel == nil || s.Initrd == nil:
		return errors.New("create machine: no kernel or initrd")
	case s.CPUs < 1 || s.MemoryMB < 1:
		return errors.New("create machine: no CPUs or memory")
	case s.Accelerator != hypervisor.HVF:
		return fmt.Errorf("create machine: accelerator %q is not Apple's", s.Accelerator)
	case s.Arch != runtime.GOARCH:
		return fault.New(fault.Invalid, "a Mac of architecture %s runs no guests for %s", runtime.GOARCH, s.Arch).
			WithHint("build the image with --arch %s", runtime.GOARCH)
	}
	for i, disk := range s.Disks {
		if disk.File == nil || disk.Format != hypervisor.Raw {
			return fmt.Errorf("create machine: disk %d is no raw image, and Virtualization.framework takes no others", i)
		}
	}
	return nil
}
