package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"

	"capsem/core/fault"
	"capsem/core/guestlink"
	"capsem/core/hypervisor"
	"capsem/core/lifecycle"
	"capsem/core/link"
	"capsem/core/machine/disk"
	"capsem/core/proto"
)

// agent is the part of guestlink.Agent that the worker uses.
type agent = *guestlink.Agent

// kernelWords are on every kernel command line of ours: little on the console, an end where a panic is, and what makes the
// kernel a harder target.
const kernelWords = "ro quiet loglevel=4 panic=-1 init_on_alloc=1 slab_nomerge"

// create resolves the accelerator, opens what the VM boots from and makes the machine.
func (w *Worker) create(ctx context.Context) (hypervisor.Machine, error) {
	w.board.step("checking the accelerator")
	accelerator, why, err := w.cfg.Resolve(ctx, hypervisor.Accelerator(w.spec.Accelerator))
	if err != nil {
		return nil, err
	}
	w.board.step("checking the image")
	boot, err := w.cfg.Assets(ctx, w.spec.AssetVersion)
	if err != nil {
		return nil, err
	}
	defer boot.Close() //nolint:errcheck // only read
	w.board.step("preparing the disk")
	system, err := disk.Open(ctx, w.cfg.Home, w.dirNow(), w.spec.DiskMB, w.cfg.DiskFormat)
	if err != nil {
		return nil, err
	}
	defer system.Close() //nolint:errcheck // the machine has its own
	w.board.step("starting the hypervisor")
	vm, err := w.cfg.Driver.Create(ctx, hypervisor.Spec{
		Name: w.spec.ID, Arch: boot.Arch, CPUs: w.spec.CPUs, MemoryMB: w.spec.MemoryMB,
		Kernel: boot.Kernel, Initrd: boot.Initrd, Cmdline: kernelWords + " capsem.rootfs=" + boot.RootFSType,
		Disks: []hypervisor.Disk{
			{File: boot.RootFS, Format: hypervisor.Raw, ReadOnly: true, Serial: "capsem-root"},
			{File: system, Format: w.cfg.DiskFormat, Serial: "capsem-system"},
		},
		Console: w.console, Accelerator: accelerator, UID: w.spec.UID, GID: w.spec.GID,
	})
	if err != nil {
		return nil, fmt.Errorf("start VM: %w", err)
	}
	info := vm.Info()
	w.log.Info("hypervisor runs", "pid", info.PID, "accelerator", accelerator, "why", why, "carrier", info.Carrier)
	w.board.update(func(st *proto.WorkerStatus) {
		st.HypervisorPID, st.Accelerator, st.Carrier, st.Step = info.PID, string(info.Accelerator), info.Carrier, "booting the guest"
	})
	return vm, nil
}

// serveGuest starts the machine and keeps a link to the agent in its guest until down ends. It returns why there is none.
func (w *Worker) serveGuest(boot, down context.Context, vm hypervisor.Machine) error {
	if err := vm.Start(boot); err != nil {
		return cause(boot, fmt.Errorf("start VM: %w", err))
	}
	a, err := w.attach(boot, vm)
	if err != nil {
		return cause(boot, err)
	}
	w.board.update(func(st *proto.WorkerStatus) {
		if st.State == lifecycle.Booting {
			st.State = lifecycle.Running
		}
		st.Step, st.ReadyNS, st.Stages, st.Failed = "", time.Now().UnixNano(), a.Stages(), a.Failed()
	})
	w.log.Info("guest is ready", "agent", a.Ready().Agent)
	for _, f := range a.Failed() {
		w.log.Warn("the guest could not do everything at boot", "step", f)
	}
	return w.keep(down, vm, a)
}

// keep waits for the link to break and makes it anew, until down ends.
func (w *Worker) keep(down context.Context, vm hypervisor.Machine, a agent) error {
	for {
		w.setAgent(a)
		select {
		case <-a.Done():
		case <-down.Done():
		}
		w.setAgent(nil)
		why := a.Err()
		if err := a.Close(); err != nil {
			w.log.Debug("closing the link", "error", err)
		}
		if down.Err() != nil {
			return nil
		}
		w.log.Warn("the link to the guest broke; connecting again", "why", why)
		limit := time.Duration(w.spec.ReadyTimeoutMS) * time.Millisecond
		ctx, cancel := context.WithTimeoutCause(down, limit, fault.New(fault.Timeout, "the guest's agent went away and did not come back within %s", limit))
		again, err := w.attach(ctx, vm)
		if err != nil {
			err = cause(ctx, err)
			cancel()
			if down.Err() != nil {
				return nil
			}
			return err
		}
		cancel()
		a = again
	}
}

func (w *Worker) setAgent(a agent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.agent = a
}

// attach connects to the guest and shakes hands.
func (w *Worker) attach(ctx context.Context, vm hypervisor.Machine) (agent, error) {
	carrier, err := vm.Carrier(ctx)
	if err != nil {
		return nil, err //nolint:wrapcheck // ErrGone is looked for
	}
	session, err := link.Connect(ctx, carrier, w.log)
	if err != nil {
		return nil, gone(err)
	}
	entropy := make([]byte, 64)
	_, _ = rand.Read(entropy) // never fails
	w.mu.Lock()
	spec := w.spec
	w.mu.Unlock()
	a, err := guestlink.Attach(ctx, session, guestlink.Config{
		Log: w.log,
		Boot: proto.BootConfig{
			ID: spec.ID, Name: spec.Name, Hostname: hostname(spec.ID), Timezone: spec.Timezone, MachineID: spec.MachineID,
			Entropy: entropy, Env: spec.Env,
		},
		OnLifecycle: w.lifecycle,
	})
	if err != nil {
		return nil, gone(err)
	}
	return a, nil
}

// gone tells a link that ended with its machine from one that did not work.
func gone(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return errors.Join(hypervisor.ErrGone, err)
	}
	return err
}

// hostname makes a host name of an id: letters, digits and hyphens, at most 63, no hyphen at its ends.
func hostname(id string) string {
	out := []byte(id[:min(len(id), 63)])
	for i, c := range out {
		if c == '_' {
			out[i] = '-'
		}
	}
	for len(out) > 1 && out[len(out)-1] == '-' {
		out = out[:len(out)-1]
	}
	return string(out)
}

// lifecycle answers what a process in the guest asks for.
func (w *Worker) lifecycle(req proto.LifecycleRequest) proto.LifecycleReply {
	switch req.Action {
	case proto.ActionPoweroff:
		w.end(shutdownGrace, false)
		return proto.LifecycleReply{OK: true}
	case proto.ActionReboot:
		w.mu.Lock()
		defer w.mu.Unlock()
		a := w.agent
		if a == nil || w.reboot || w.vm == nil {
			return proto.LifecycleReply{OK: a != nil}
		}
		w.reboot = true
		w.work.Go(func() { w.rebootGuest(a, w.vmNow()) })
		return proto.LifecycleReply{OK: true}
	case proto.ActionSuspend:
		return proto.LifecycleReply{Message: "this version of capsem cannot save a VM to disk; stop it instead"}
	}
	return proto.LifecycleReply{Message: "unknown action"}
}

// rebootGuest has the guest reset itself, which the hypervisor reports as the end of this machine.
func (w *Worker) rebootGuest(a agent, vm hypervisor.Machine) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace+shutdownSlack) //nolint:contextcheck // outlives the request
	defer cancel()
	err := a.Shutdown(ctx, uint32(shutdownGrace.Milliseconds()), true)
	if err == nil && vm != nil {
		_, err = vm.Wait(ctx)
	}
	if err != nil {
		w.log.Warn("the guest did not reboot", "error", err)
		w.mu.Lock()
		w.reboot = false
		w.mu.Unlock()
	}
}

func (w *Worker) vmNow() hypervisor.Machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.vm
}
