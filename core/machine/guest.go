package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"capsem/core/checkpoint"
	"capsem/core/hypervisor"
	"capsem/core/proto"
)

// kernelWords are on every kernel command line of ours: little on the console, an end where a panic is, and what makes the
// kernel a harder target. Without its self-tests of ciphers the kernel is up 0.5 s sooner under TCG (1.6 s instead of 2.1).
const kernelWords = "ro quiet loglevel=4 panic=-1 init_on_alloc=1 slab_nomerge cryptomgr.notests"

// parts is what a machine is made of.
type parts struct {
	accelerator hypervisor.Accelerator
	why         string
	boot        *Boot
	system      *os.File
	// tryWarm says that a template may be used, warm what of it is.
	tryWarm bool
	warm    *warm
	// saved is the checkpoint that the VM goes on from.
	saved *checkpoint.Saved
}

// close gives the files back; the machine has its own.
func (p *parts) close() {
	if p.boot != nil && p.boot.Close != nil {
		_ = p.boot.Close() // only read
	}
	p.warm.close()
	if p.saved != nil {
		_ = p.saved.State.Close() // only read
	}
	if p.system != nil {
		_ = p.system.Close() // the machine's copy is what counts
	}
}

// gather resolves the accelerator, opens the image and makes the disk, all at once.
func (w *Worker) gather(ctx context.Context) (*parts, error) {
	w.board.step("checking the image, the disk and the accelerator")
	p := &parts{tryWarm: w.mayBeWarm()}
	steps := []func(context.Context) error{
		func(ctx context.Context) (err error) {
			p.accelerator, p.why, err = w.cfg.Resolve(ctx, hypervisor.Accelerator(w.spec.Accelerator))
			return err
		},
		func(ctx context.Context) (err error) {
			p.boot, err = w.cfg.Assets(ctx, w.spec.AssetVersion)
			return err
		},
	}
	openDisk := func(ctx context.Context) error { return w.systemDisk(ctx, p) }
	if !p.tryWarm {
		steps = append(steps, openDisk)
	}
	err := together(ctx, steps)
	if err == nil {
		err = w.fit(ctx, p)
	}
	if err == nil && p.tryWarm { // which template fits depends on the others
		err = openDisk(ctx)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// fit says what a state of this machine depends on, and opens the one that it goes on from.
func (w *Worker) fit(ctx context.Context, p *parts) error {
	if w.cfg.Host == nil {
		return nil // this hypervisor saves no machines
	}
	host, err := w.cfg.Host(ctx, p.accelerator)
	if err != nil {
		return err
	}
	want := Want(&w.spec, p.boot.RootFSType, p.accelerator, host)
	w.mu.Lock()
	w.want = want
	w.mu.Unlock()
	p.saved, err = w.saved()
	w.resuming = p.saved != nil
	return err
}

// together takes steps at the same time.
func together(ctx context.Context, steps []func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(steps))
	var wg sync.WaitGroup
	for i, f := range steps {
		wg.Go(func() {
			if errs[i] = f(ctx); errs[i] != nil {
				cancel() // the others are in vain
			}
		})
	}
	wg.Wait()
	return first(errs)
}

// first returns the error that the others are not the consequence of.
func first(errs []error) (found error) {
	for _, err := range errs {
		if err != nil && (found == nil || errors.Is(found, context.Canceled)) {
			found = err
		}
	}
	return found
}

// create makes the machine, with its virtual CPUs stopped.
func (w *Worker) create(ctx context.Context) (hypervisor.Machine, error) {
	p, err := w.gather(ctx)
	if err != nil {
		return nil, err
	}
	defer p.close()
	w.board.step("starting the hypervisor")
	spec := w.machineSpec(p)
	if err := w.openShares(p.saved); err != nil {
		return nil, err
	}
	if p.saved != nil {
		spec.State = p.saved.State
		w.board.step("going on from where it was suspended")
	}
	if p.warm != nil {
		spec.RAM, spec.State = p.warm.ram, p.warm.state
		w.board.update(func(st *proto.WorkerStatus) { st.Warm = true })
	}
	vm, err := w.cfg.Driver.Create(ctx, spec)
	switch {
	case err == nil || p.saved == nil || ctx.Err() != nil:
	case w.spec.ForkedMemory:
		if err := w.forked(err); err != nil {
			return nil, err
		}
		return w.create(ctx)
	default:
		return nil, w.misfit(err)
	}
	if err != nil {
		return nil, fmt.Errorf("start VM: %w", err)
	}
	info := vm.Info()
	w.log.Info("hypervisor runs", "pid", info.PID, "accelerator", info.Accelerator, "why", p.why, "carrier", info.Carrier, "warm", p.warm != nil)
	w.board.update(func(st *proto.WorkerStatus) {
		st.HypervisorPID, st.Accelerator, st.Carrier, st.Step = info.PID, string(info.Accelerator), info.Carrier, "booting the guest"
	})
	return vm, nil
}

// machineSpec is the machine as it boots.
func (w *Worker) machineSpec(p *parts) hypervisor.Spec {
	return hypervisor.Spec{
		Name: w.spec.ID, Arch: p.boot.Arch, CPUs: w.spec.CPUs, MemoryMB: w.spec.MemoryMB,
		Kernel: p.boot.Kernel, Initrd: p.boot.Initrd, Cmdline: Cmdline(p.boot.RootFSType),
		Disks: []hypervisor.Disk{
			{File: p.boot.RootFS, Format: hypervisor.Raw, ReadOnly: true, Serial: "capsem-root"},
			{File: p.system, Format: w.cfg.DiskFormat, Serial: "capsem-system"},
		},
		Console: w.console, Accelerator: p.accelerator, UID: w.spec.UID, GID: w.spec.GID, OnStall: w.stall,
	}
}

// hostname makes a label of RFC 1123 of a VM's id: lower case letters, digits and hyphens, at most 63, no hyphen at its ends.
func hostname(id string) string {
	id = strings.ToLower(strings.ReplaceAll(id, "_", "-"))
	return strings.Trim(id[:min(len(id), 63)], "-")
}
