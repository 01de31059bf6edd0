package vz

import (
	"context"
	"os"

	"capsem/core/hypervisor"
)

var _ hypervisor.Saver = (*machine)(nil)

// canSave reports whether the framework can save machines: on Apple's own processors.
func canSave() bool { return true }

// Save writes the paused machine's state. The framework takes a path only, so the open file is named by the kernel.
func (m *machine) Save(ctx context.Context, to *os.File) error {
	path, err := pathOf(to)
	if err != nil {
		return err
	}
	return m.run(ctx, "save", func() error { return m.vm.SaveMachineStateToPath(path) })
}

// Restore loads a state that Save has written into a machine that was not started; it is paused then.
func (m *machine) Restore(ctx context.Context, from *os.File) error {
	path, err := pathOf(from)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.started = true
	m.mu.Unlock()
	return m.run(ctx, "restore", func() error { return m.vm.RestoreMachineStateFromURL(path) })
}
