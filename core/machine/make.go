package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"capsem/core/guard"
	"capsem/core/hypervisor"
	"capsem/core/proto"
	"capsem/core/template"
)

const (
	// makingNice is the priority at which templates are made: nobody waits for them.
	makingNice = 10
	// warmUpTime bounds one command that warms a template up; under emulation node takes some seconds.
	warmUpTime = 60 * time.Second
	// maxState bounds the state of a machine without its memory, in bytes: half a megabyte is usual.
	maxState = 64 << 20
)

// warmUp is run in a guest before it is saved, each by the shell: it leaves in memory what first commands read from the disk. What
// is not installed fails, which does not matter.
var warmUp = []string{"true", "git --version", "python3 -c 'import json, os, subprocess'", "node -e 0", "sync"}

// MakeTemplate boots the VM that is described in cfg.Dir, a draft of core/template, until its agent answers, and saves it there as a
// template. Another one being made in the same installation is guard.ErrHeld.
func MakeTemplate(ctx context.Context, cfg Config) (*template.Template, error) {
	lock, err := guard.Acquire(template.Lock(cfg.Home))
	if err != nil {
		return nil, fmt.Errorf("make template: %w", err)
	}
	defer lock.Release()                                         //nolint:errcheck // the kernel lets go of it anyway
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, makingNice) // only politeness
	shares := cfg.Share
	cfg.Share = false // until the end: what warms the guest up must not leave anything of an empty workspace in its memory
	w, err := New(cfg)
	if err != nil {
		return nil, err
	}
	w.making = true
	w.console, err = os.OpenFile(w.dir.SerialLog(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND|oNoFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make template: %w", err)
	}
	defer w.console.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(w.spec.ReadyTimeoutMS)*time.Millisecond+time.Duration(len(warmUp))*warmUpTime)
	defer cancel()
	want, err := w.freeze(ctx, shares)
	if err != nil {
		return nil, fmt.Errorf("make template: %w", err)
	}
	return template.Finish(cfg.Home, w.dir.Dir(), want) //nolint:wrapcheck // says what it did
}

// freeze boots the machine, saves it into the draft, and says what it is a template for.
func (w *Worker) freeze(ctx context.Context, shares bool) (want template.Want, err error) {
	p, err := w.gather(ctx)
	if err != nil {
		return want, err
	}
	defer p.close()
	ram, err := template.NewMemory(w.spec.MemoryMB)
	if err != nil {
		return want, err //nolint:wrapcheck // says what it did
	}
	defer ram.Close()
	spec := w.machineSpec(p)
	spec.RAM, spec.RAMShared = ram, true
	vm, err := w.cfg.Driver.Create(ctx, spec)
	if err != nil {
		return want, err //nolint:wrapcheck // says what it did
	}
	defer func() {
		_, ended := w.kill(context.WithoutCancel(ctx), vm)
		err = errors.Join(err, ended)
	}()
	err = w.ripen(ctx, vm)
	if err == nil && shares {
		err = w.mountNothing(ctx, vm)
	}
	if err != nil {
		return want, err
	}
	if err := saveState(ctx, vm, filepath.Join(w.dir.Dir(), template.StateFile)); err != nil {
		return want, err
	}
	if err := template.SaveMemory(ram, filepath.Join(w.dir.Dir(), template.RAMFile)); err != nil {
		return want, err //nolint:wrapcheck // says what it did
	}
	return w.want, nil
}

// ripen waits for the guest's agent, has it run what warms the guest up, and leaves it without a link.
func (w *Worker) ripen(ctx context.Context, vm hypervisor.Machine) error {
	if err := vm.Start(ctx); err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	a, err := w.attach(ctx, vm)
	if err != nil {
		return err
	}
	if err := saveHome(ctx, a, filepath.Join(w.dir.Dir(), template.HomeFile)); err != nil {
		return errors.Join(err, a.Close())
	}
	for _, command := range warmUp {
		if _, err := runIn(ctx, a, command, io.Discard); err != nil {
			return errors.Join(fmt.Errorf("warm up with %q: %w", command, err), a.Close())
		}
	}
	return a.Close() //nolint:wrapcheck // says what it did
}

// mountNothing has the guest mount its workspace, so that VMs which go on from it need not: that takes a tenth of a second. Nobody looks
// into it, so the guest's kernel knows nothing of it but its root. An image whose home directory is not in the template is left alone:
// its VMs copy it into their workspaces when they mount them.
func (w *Worker) mountNothing(ctx context.Context, vm hypervisor.Machine) error {
	if _, err := os.Lstat(filepath.Join(w.dir.Dir(), template.HomeFile)); err != nil {
		return nil //nolint:nilerr // as said
	}
	end, err := w.shareNothing()
	if err != nil {
		return err
	}
	defer end() //nolint:errcheck // nothing was written
	w.cfg.Share = true
	a, err := w.attach(ctx, vm)
	if err == nil {
		err = errors.Join(w.unshared(a), a.Close())
	}
	return err
}

// runIn runs a command in the guest and returns its exit code; out gets what it prints.
func runIn(ctx context.Context, a guestAgent, command string, out io.Writer) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, warmUpTime)
	defer cancel()
	st, err := a.Exec(ctx, &proto.ExecRequest{Command: command, Dir: "/"})
	if err != nil {
		return 0, err //nolint:wrapcheck // says what it did
	}
	stop := context.AfterFunc(ctx, func() { _ = st.Close() })
	defer stop()
	defer st.Close()
	for frames := proto.NewStreamReader(st); ; {
		kind, data, err := frames.Next()
		switch {
		case err != nil:
			return 0, err //nolint:wrapcheck // says what it did
		case kind == proto.KindStdout:
			if _, err := out.Write(data); err != nil {
				return 0, err //nolint:wrapcheck // the caller's
			}
		case kind == proto.KindExit:
			exit, err := decodeExit(data)
			return exit.Code, err
		}
	}
}

// saveState pauses the machine and writes its state.
func saveState(ctx context.Context, vm hypervisor.Machine, path string) error {
	saver, ok := vm.(hypervisor.Saver)
	if !ok {
		return errors.New("this hypervisor saves no machines")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|oNoFollow, 0o600)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	err = vm.Pause(ctx)
	if err == nil {
		err = saver.Save(ctx, f)
	}
	if info, failed := f.Stat(); err == nil && (failed != nil || info.Size() > maxState) {
		err = errors.New("save state: it is larger than a state without memory can be")
	}
	return errors.Join(err, f.Close())
}
