package service

import (
	"context"
	"runtime"

	"capsem/core/assets"
	"capsem/core/hypervisor"
	"capsem/core/hypervisor/qemu"
	"capsem/core/machine"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/template"
)

// want is the template that a VM may start from.
func want(ctx context.Context, home paths.Home, spec *proto.VMSpec) (template.Want, error) {
	set, err := assets.Load(home, runtime.GOARCH, spec.AssetVersion)
	if err != nil {
		return template.Want{}, err //nolint:wrapcheck // a fault
	}
	accelerator, _, err := qemu.Resolve(ctx, home, hypervisor.Accelerator(spec.Accelerator))
	if err != nil {
		return template.Want{}, err //nolint:wrapcheck // a fault
	}
	host, err := qemu.StateKey(accelerator)
	if err != nil {
		return template.Want{}, err //nolint:wrapcheck // says what it did
	}
	return machine.Want(spec, set.RootFSType(), accelerator, host), nil
}
