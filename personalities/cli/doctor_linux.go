package cli

import (
	"context"

	"capsem/core/hypervisor"
	"capsem/core/hypervisor/qemu"
	"capsem/core/paths"
)

// hypervisor checks that QEMU is there and which accelerator really boots a guest.
func (d *diagnosis) hypervisor(ctx context.Context, home paths.Home) bool {
	done := d.s.step("proving the accelerator")
	accelerator, why, err := qemu.Resolve(ctx, home, hypervisor.Auto)
	done()
	return d.add("accelerator", string(accelerator)+": "+why, err)
}
