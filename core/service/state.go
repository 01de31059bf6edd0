package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"capsem/core/api"
	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
)

// saveRegistry writes the list of named VMs as the table has it.
func (s *Service) saveRegistry() error {
	s.registryMu.Lock()
	defer s.registryMu.Unlock()
	vms := map[string]Entry{}
	for _, v := range s.all() {
		if now := v.view(); now.spec.Name != "" && !now.gone {
			vms[now.spec.Name] = entryOf(now.spec)
		}
	}
	data, err := encodeRegistry(vms)
	if err != nil {
		return err
	}
	s.opts.step("write registry")
	return atomicfile.Write(s.opts.Home.Registry(), data, 0o600) //nolint:wrapcheck // says what and where
}

// loadRegistry reads the list of named VMs. One that does not parse is moved aside and said; the directories of the VMs are then
// all that tells of them, so nothing is lost but what only the list knew.
func (s *Service) loadRegistry() (map[string]Entry, error) {
	path := s.opts.Home.Registry()
	data, err := readBounded(path, maxRegistry)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no list is an empty one
	}
	var vms map[string]Entry
	if err == nil {
		vms, err = decodeRegistry(data)
	}
	if err == nil {
		return vms, nil
	}
	if unreadable(err) {
		return nil, fault.Wrap(err, fault.Internal, "the list of named VMs cannot be read (%s)", err).
			WithHint("nothing was changed; start the service again when %s can be read", path)
	}
	aside, moved := moveAside(path, time.Now())
	if moved != nil {
		return nil, fault.Wrap(errors.Join(err, moved), fault.Internal, "%s is corrupt and cannot be moved aside", path).
			WithHint("move it away yourself; the list is made again from the directories of the VMs")
	}
	s.notice("the list of named VMs was corrupt: moved aside, made again from the VMs' directories", "file", aside, "error", err)
	return nil, nil //nolint:nilnil // as above
}

// loadNamed reads the named VMs from their directories, with the registry to fall back on.
func (s *Service) loadNamed(reg map[string]Entry, deleted map[string]bool) error {
	entries, err := os.ReadDir(s.opts.Home.PersistentDir())
	if err != nil {
		return fmt.Errorf("read named VMs: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || api.CheckName(e.Name()) != nil {
			continue
		}
		dir := s.opts.Home.Persistent(e.Name())
		spec, err := s.recoverSpec(e.Name(), dir, reg)
		v := newVM(spec, dir, lifecycle.Stopped)
		v.state, v.lastError = settle(dir)
		if st, ok := readStatus(dir.Status()); ok {
			v.idle = v.state == lifecycle.Suspended && st.Idle
		}
		if unreadable(err) {
			v.state, v.lastError = lifecycle.Defunct, "its description cannot be read: "+err.Error()
			s.notice("the description of a VM cannot be read", "vm", e.Name(), "error", err)
		} else if err != nil {
			return err
		}
		s.vms[spec.ID] = v
	}
	for name, entry := range reg {
		if _, ok := s.vms[name]; ok || deleted[name] {
			continue
		}
		v := newVM(entry.spec(), s.opts.Home.Persistent(name), lifecycle.Defunct)
		v.lastError = "its directory " + v.dir.Dir() + " is missing"
		s.vms[name] = v
		s.notice("the directory of a named VM is missing", "vm", name, "directory", v.dir.Dir())
	}
	return nil
}

// unreadable reports whether a file could not be read, which says nothing about what is in it.
func unreadable(err error) bool {
	_, ok := errors.AsType[*fs.PathError](err)
	return ok && !errors.Is(err, fs.ErrNotExist)
}

// recoverSpec reads vm.json of a named VM. One that cannot be read stays as it is, and an unreadable error comes with what the
// registry knows. One that is missing or does not parse is made again from the registry, else from the
// defaults: the VM's disk is what matters.
func (s *Service) recoverSpec(name string, dir paths.VM, reg map[string]Entry) (proto.VMSpec, error) {
	spec, err := readSpec(dir.Spec())
	if err == nil && spec.Name != name {
		err = fmt.Errorf("it is of a VM named %.80q", spec.Name)
	}
	switch entry, ok := reg[name]; {
	case err == nil:
		return spec, nil
	case unreadable(err) && ok:
		return entry.spec(), err
	case unreadable(err):
		return proto.VMSpec{ID: name, Name: name}, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		aside, moved := moveAside(dir.Spec(), time.Now())
		if moved != nil {
			return spec, fault.Wrap(errors.Join(err, moved), fault.Internal, "%s is corrupt and cannot be moved aside", dir.Spec())
		}
		s.notice("the description of a VM was corrupt: moved aside, made again", "vm", name, "file", aside, "error", err)
	}
	entry, ok := reg[name]
	spec = entry.spec()
	if !ok {
		set, err := s.opts.Settings()
		if err != nil {
			return spec, err
		}
		version, _ := s.opts.AssetVersion() // none: said when it is to boot
		spec = proto.VMSpec{
			ID: name, Name: name, CPUs: set.VM.CPUs, MemoryMB: set.VM.RAMMB, DiskMB: set.VM.DiskMB, AssetVersion: version,
			MachineID: newMachineID(), CreatedNS: time.Now().UnixNano(),
		}
		s.notice("the sizes and environment of a VM are lost: it has the defaults now", "vm", name)
	}
	return spec, writeSpec(dir.Spec(), spec)
}

// settle is the state of a named VM that has no worker.
func settle(dir paths.VM) (lifecycle.State, string) {
	st, ok := readStatus(dir.Status())
	switch {
	case !ok:
		return lifecycle.Stopped, ""
	case st.State == lifecycle.Stopped:
		return st.State, ""
	case st.State == lifecycle.Suspended, st.State == lifecycle.Defunct && st.LastError != "":
		return standing(dir, st.State), clip(st.LastError, 16<<10)
	}
	why := "its worker died while no service ran"
	if words := lastWords(dir); words != "" {
		why += ": " + words
	}
	return standing(dir, lifecycle.Defunct), why
}

// loadUnnamed reads the unnamed VMs, and finishes naming one whose persist was cut short.
func (s *Service) loadUnnamed() error {
	entries, err := os.ReadDir(s.opts.Home.Sessions())
	if err != nil {
		return fmt.Errorf("read unnamed VMs: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || api.CheckName(e.Name()) != nil {
			continue
		}
		dir := s.opts.Home.Session(e.Name())
		spec, err := readSpec(dir.Spec())
		if err != nil {
			s.notice("an unnamed VM cannot be read and is put with the failed ones", "vm", e.Name(), "error", err)
			spec = proto.VMSpec{ID: e.Name()}
		}
		if spec.Name != "" {
			if dir, err = s.finishRename(dir, spec); err != nil {
				return err
			}
		}
		v := newVM(spec, dir, lifecycle.Defunct)
		v.state, v.lastError = settle(dir)
		s.vms[spec.ID] = v
	}
	return nil
}

// finishRename moves a VM that already has a name to where named VMs are.
func (s *Service) finishRename(dir paths.VM, spec proto.VMSpec) (paths.VM, error) {
	to := s.opts.Home.Persistent(spec.Name)
	if err := os.Rename(dir.Dir(), to.Dir()); err != nil {
		return dir, fmt.Errorf("finish naming a VM: %w", err)
	}
	s.log.Info("finished naming a VM", "vm", spec.Name, "former", spec.FormerID)
	return to, nil
}

// beingDeleted lists the named VMs whose deletion was cut short.
func beingDeleted(parent string) (map[string]bool, error) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, fmt.Errorf("read named VMs: %w", err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), goneSuffix); ok {
			names[name] = true
		}
	}
	return names, nil
}
