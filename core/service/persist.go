package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"capsem/core/api"
	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/workerclient"
)

// Persist gives an unnamed VM a name while it runs, so that it stays. Cut short at any point, it is either as it was or is
// finished at the next start: the name in vm.json decides.
func (s *Service) Persist(ctx context.Context, id, name string) error {
	if err := api.CheckName(name); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if strings.HasSuffix(name, tmp) {
		return fault.New(fault.Invalid, "%s ends in %s, which marks VMs that do not stay", name, tmp).WithHint("choose another name")
	}
	v, err := s.find(id)
	if err != nil {
		return err
	}
	if err := v.take(ctx); err != nil {
		return err
	}
	defer v.give()
	w := v.view()
	switch {
	case w.spec.Name != "":
		return fault.New(fault.Conflict, "VM %s is already named", w.spec.Name).WithHint("it stays until capsem delete %s", w.spec.Name)
	case w.life == nil || w.state == lifecycle.Stopping:
		return notRunning(w)
	}
	if err := s.claim(v, name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), relocateTime)
	defer cancel()
	if err := s.rename(ctx, v, w, name); err != nil {
		if v.view().spec.Name != name { // else it has the name, and only the list could not be written
			s.unclaim(v, name)
		}
		return err
	}
	s.records.begun(v.view().spec)
	s.log.Info("named", "vm", name, "former", id)
	return nil
}

// claim enters the VM under its new name too, so that nobody else takes it.
func (s *Service) claim(v *vm, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.takenLocked(name) {
		return fault.New(fault.Conflict, "there is already a VM named %s", name).WithHint("choose another name")
	}
	s.vms[name] = v
	return nil
}

func (s *Service) unclaim(v *vm, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.vms[name] == v {
		delete(s.vms, name)
	}
}

// relocateTime is how long a worker may take to agree to its VM's new name.
const relocateTime = 10 * time.Second

// rename does it: the new vm.json, the directory, the worker, the table, the list.
func (s *Service) rename(ctx context.Context, v *vm, w view, name string) error {
	spec := w.spec
	spec.ID, spec.Name, spec.FormerID = name, name, w.spec.ID
	to := s.opts.Home.Persistent(name)
	back := func(err error) error { return errors.Join(err, writeSpec(w.dir.Spec(), w.spec)) }
	conn, err := workerclient.Dial(ctx, s.opts.Home.InstanceSocket(w.life.instance))
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	defer conn.Close()
	v.settling.Lock()
	defer v.settling.Unlock()
	if now := v.view(); now.life != w.life {
		return notRunning(now)
	}
	s.opts.step("describe named VM")
	if err := writeSpec(w.dir.Spec(), spec); err != nil {
		return back(err)
	}
	s.opts.step("rename directory")
	if err := os.Rename(w.dir.Dir(), to.Dir()); err != nil {
		return back(fmt.Errorf("rename VM directory: %w", err))
	}
	moved := w
	moved.spec, moved.dir = spec, to
	l := *w.life
	s.opts.step("relocate worker")
	if err := s.relocate(ctx, conn, &l, moved); err != nil {
		return back(errors.Join(err, os.Rename(to.Dir(), w.dir.Dir())))
	}
	v.update(func() {
		v.spec, v.dir = spec, to
		if v.life != nil {
			v.life.instance = l.instance
		}
	})
	s.unclaim(v, w.spec.ID)
	return errors.Join(atomicfile.SyncDir(s.opts.Home.PersistentDir()), atomicfile.SyncDir(s.opts.Home.Sessions()), s.saveRegistry())
}
