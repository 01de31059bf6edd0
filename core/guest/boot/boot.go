//go:build linux

// Package boot is what PID 1 does until the agent runs: mounts, modules, the writable root, hardening, the network. Every
// step is timed. What the guest cannot do without ends the boot with one line on the console.
package boot

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"capsem/core/guest/environ"
	"capsem/core/guest/kmod"
	"capsem/core/guest/layout"
	"capsem/core/guest/netcfg"
	"capsem/core/guest/nft"
	"capsem/core/guest/pid1"
	"capsem/core/guest/stage"
)

// RestartedEnv tells an agent that it is not the first of this boot.
const RestartedEnv = "CAPSEM_AGENT_RESTARTED=1"

// boot is one run of the steps.
type boot struct {
	timer   *stage.Timer
	console io.Writer
	cmdline Cmdline
}

// Run boots the guest and then lives on as PID 1. It returns only when it failed; the caller powers the machine off then.
func Run(console io.Writer) error {
	b := &boot{timer: stage.NewTimer(), console: console}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"mounts", b.early},
		{"modules", b.modules},
		{"rootfs", b.rootfs},
		{"system_disk", b.systemDisk},
		{"overlay", b.overlay},
		{"switch_root", b.switchRoot},
		{"network", b.network},
		{"hardening", b.harden},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		b.timer.Mark(step.name)
	}
	if err := b.timer.Save(layout.BootReport); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	for _, failed := range b.timer.Failed() {
		fmt.Fprintln(b.console, "capsem-init: went on without", failed)
	}
	init := pid1.Init{
		Agent: layout.BinDir + "/agent", Env: environ.Merge(environ.Base()), RestartedEnv: RestartedEnv, Console: console,
	}
	return init.Run()
}

// modules loads what the initrd brings. What is missing shows in the step that needs it.
func (b *boot) modules() error {
	if err := kmod.LoadAll("/modules", b.cmdline.unwanted); err != nil {
		b.timer.Fail("modules", err)
	}
	// They are in the kernel now; the copies in the initrd only take memory.
	if err := os.RemoveAll("/modules"); err != nil {
		b.timer.Fail("modules", err)
	}
	return nil
}

// network sets up lo and dummy0, and sends what would leave to the agent's proxies. A guest in which that is not as expected must not run.
func (b *boot) network() error {
	if err := nft.Apply(); err != nil { // before there is a way out
		return err //nolint:wrapcheck // says what it did
	}
	if err := netcfg.Up(); err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	if err := nft.Verify(); err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	if err := unix.Sethostname([]byte("capsem")); err != nil {
		b.timer.Fail("host name", err)
	}
	return nil
}

// PowerOff is the end of a boot that failed.
func PowerOff(console io.Writer, err error) {
	fmt.Fprintf(console, "capsem-init: FATAL %v\n", err)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintf(console, "capsem-init: cannot power off: %v\n", err)
	}
}
