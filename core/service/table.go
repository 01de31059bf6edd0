package service

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"

	"capsem/core/api"
	"capsem/core/config"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
)

// errNotReady is the cause of a context whose time for a guest's start ran out.
var errNotReady = errors.New("the guest did not answer in time")

// all returns the VMs, oldest first.
func (s *Service) all() []*vm {
	s.mu.Lock()
	vms := slices.Collect(maps.Values(s.vms))
	s.mu.Unlock()
	slices.SortFunc(vms, func(a, b *vm) int {
		x, y := a.view().spec, b.view().spec
		if x.CreatedNS != y.CreatedNS {
			return int(min(max(x.CreatedNS-y.CreatedNS, -1), 1))
		}
		return strings.Compare(x.ID, y.ID)
	})
	return vms
}

// find returns the VM with an id, or an error that names the nearest.
func (s *Service) find(id string) (*vm, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := maps.Clone(s.vms)
	maps.DeleteFunc(seen, func(_ string, v *vm) bool { return v.view().spec.Pooled }) // nobody's yet
	if v, ok := seen[id]; ok {
		return v, nil
	}
	if failed := s.opts.failedDir(id); failed != "" {
		return nil, fault.New(fault.NotFound, "VM %s has died and was not kept", id).WithHint("capsem logs %s says why", id)
	}
	err := fault.New(fault.NotFound, "there is no VM %.80q", id)
	if near := nearest(id, slices.Sorted(maps.Keys(seen))); near != "" {
		return nil, err.WithHint("did you mean %s? capsem list shows all", near)
	}
	return nil, err.WithHint("capsem list shows all")
}

// failedDir is where an unnamed VM that died unexpectedly is kept, or "".
func (o *Options) failedDir(id string) string {
	if api.CheckName(id) != nil {
		return ""
	}
	dir := string(o.failed(id))
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return ""
	}
	return dir
}

func (o *Options) failed(id string) paths.VM { return paths.VM(o.Home.Failed() + "/" + id) }

// enter adds a VM to the table if its id is free and one more VM may run. It chooses the id of an unnamed one, and the user
// that its hypervisor runs as.
func (s *Service) enter(spec proto.VMSpec, set *config.Settings) (*vm, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.roomLocked(set.VM.MaxVMs); err != nil && !spec.Pooled {
		return nil, err
	}
	if spec.Name == "" {
		id, err := newID(s.takenLocked, slices.Collect(maps.Keys(s.vms)))
		if err != nil {
			return nil, err
		}
		spec.ID = id
	} else if s.takenLocked(spec.ID) {
		return nil, fault.New(fault.Conflict, "there is already a VM named %s", spec.ID).
			WithHint("choose another name, or capsem resume %s", spec.ID)
	}
	if os.Geteuid() == 0 {
		spec.UID = s.freeUIDLocked()
		spec.GID = spec.UID
	}
	dir := s.opts.Home.Session(spec.ID)
	if spec.Name != "" {
		dir = s.opts.Home.Persistent(spec.Name)
	}
	v := newVM(spec, dir, lifecycle.Created)
	s.vms[spec.ID] = v
	return v, nil
}

// takenLocked reports whether an id cannot be given: a VM has it, or something on disk bears it.
func (s *Service) takenLocked(id string) bool {
	if _, ok := s.vms[id]; ok {
		return true
	}
	h := s.opts.Home
	for _, path := range []string{h.Session(id).Dir(), h.Persistent(id).Dir(), s.opts.failed(id).Dir(), h.InstanceLock(id)} {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
	}
	return false
}

// roomLocked refuses one VM more than may run at once.
func (s *Service) roomLocked(limit int) error {
	live := 0
	for _, v := range s.vms {
		if w := v.view(); w.starting || !w.spec.Pooled && (w.life != nil || lifecycle.Live(w.state) || w.state == lifecycle.Created) {
			live++
		}
	}
	if live < limit {
		return nil
	}
	return fault.New(fault.LimitReached, "%d VMs run already, and the limit is %d", live, limit).
		WithHint("stop or delete one, or raise vm.resources.max_concurrent_vms in user.toml")
}

// firstUID is the first of the user ids that hypervisors run as when the service is root: far from any real user's.
const firstUID = 64_000_000

func (s *Service) freeUIDLocked() uint32 {
	used := map[uint32]bool{}
	for _, v := range s.vms {
		used[v.view().spec.UID] = true
	}
	uid := uint32(firstUID)
	for used[uid] {
		uid++
	}
	return uid
}

// remove takes a VM out of the table.
func (s *Service) remove(v *vm) {
	v.update(func() { v.gone = true })
	id := v.id()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.vms[id] == v {
		delete(s.vms, id)
	}
}
