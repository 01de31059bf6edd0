package cli

import (
	"context"

	"capsem/core/paths"
)

// hypervisor has nothing to look for: Virtualization.framework is part of macOS.
func (d *diagnosis) hypervisor(context.Context, paths.Home) bool {
	return d.add("accelerator", "hvf: Virtualization.framework", nil)
}
