package service_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/service"
	"capsem/core/service/servicetest"
)

// content is what a VM, an image or a checkpoint holds: a disk, and a memory if there is one.
type content struct {
	disk, memory string
	runs         bool // or is suspended: there is memory
	// suspended VMs have to be resumed before they can be asked.
	suspended bool
	points    map[string]content
}

// family is the VMs and images as they should be.
type family struct {
	t       *testing.T
	s       *service.Service
	r       *rand.Rand
	n       int
	vms     map[string]content
	images  map[string]content
	journal []string
}

func (f *family) note(format string, args ...any) {
	f.journal = append(f.journal, fmt.Sprintf(format, args...))
}

func (f *family) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatalf("%s\nafter %s", fault.Line(err), strings.Join(f.journal, ", "))
	}
}

// pick chooses a name, "" when there is none.
func pick(r *rand.Rand, m map[string]content) string {
	names := slices.Sorted(maps.Keys(m))
	if len(names) == 0 {
		return ""
	}
	return names[r.IntN(len(names))]
}

func (f *family) fresh(kind string) string {
	f.n++
	return fmt.Sprintf("%s%d", kind, f.n)
}

// step does one thing to the family and to the model of it.
func (f *family) step() {
	f.t.Helper()
	id, img := pick(f.r, f.vms), pick(f.r, f.images)
	switch op := f.r.IntN(14); {
	case op == 0 && len(f.vms) < 4, id == "":
		f.create("")
	case op <= 2 && img != "" && len(f.vms) < 4:
		f.create(img)
	case op <= 4:
		f.change(id)
	case op == 5:
		f.fork(id)
	case op == 6 && img != "":
		f.note("delete image %s", img)
		f.ok(f.s.DeleteImage(img))
		delete(f.images, img)
	case op == 7:
		f.note("delete %s", id)
		f.ok(f.s.Delete(f.t.Context(), id))
		delete(f.vms, id)
	case op == 8:
		f.note("suspend %s", id)
		if vm := f.vms[id]; vm.runs && !vm.suspended {
			_, err := f.s.Suspend(f.t.Context(), id)
			f.ok(err)
			vm.suspended = true
			f.vms[id] = vm
		}
	case op == 9:
		f.note("resume %s", id)
		f.resume(id)
	case op == 10:
		f.stop(id)
	case op == 11:
		f.checkpoint(id)
	case op == 12:
		f.rewind(id)
	default:
		f.note("prune")
		_, err := f.s.PruneTemplates()
		f.ok(err)
	}
}

func (f *family) create(img string) {
	f.t.Helper()
	name := f.fresh("vm")
	f.note("create %s of %q", name, img)
	_, err := f.s.Provision(f.t.Context(), api.ProvisionRequest{Name: name, Image: img})
	f.ok(err)
	vm := content{runs: true, points: map[string]content{}}
	if img != "" {
		vm.disk, vm.memory = f.images[img].disk, f.images[img].memory
	}
	f.vms[name] = vm
}

// change has a VM write to its disk and memory.
func (f *family) change(id string) {
	f.t.Helper()
	f.note("change %s", id)
	f.resume(id)
	vm := f.vms[id]
	vm.disk, vm.memory = f.fresh("disk"), f.fresh("memory")
	say(f.t, f.s, id, "disk "+vm.disk)
	say(f.t, f.s, id, "memory "+vm.memory)
	f.vms[id] = vm
}

func (f *family) resume(id string) {
	f.t.Helper()
	_, err := f.s.Resume(f.t.Context(), id, false)
	f.ok(err)
	vm := f.vms[id]
	vm.runs, vm.suspended = true, false
	f.vms[id] = vm
}

// stop takes the memory: what is suspended keeps it.
func (f *family) stop(id string) {
	f.t.Helper()
	f.note("stop %s", id)
	_, err := f.s.Stop(f.t.Context(), id)
	f.ok(err)
	if vm := f.vms[id]; !vm.suspended {
		vm.runs, vm.memory = false, ""
		f.vms[id] = vm
	}
}

func (f *family) fork(id string) {
	f.t.Helper()
	img := f.fresh("image")
	f.note("fork %s %s", id, img)
	_, err := f.s.Fork(f.t.Context(), id, api.ForkRequest{Image: img})
	f.ok(err)
	f.images[img] = content{disk: f.vms[id].disk, memory: f.vms[id].memory}
}

func (f *family) checkpoint(id string) {
	f.t.Helper()
	name := f.fresh("point")
	f.note("checkpoint %s %s", id, name)
	_, err := f.s.Checkpoint(f.t.Context(), id, api.CheckpointRequest{Name: name})
	f.ok(err)
	vm := f.vms[id]
	vm.points[name] = content{disk: vm.disk, memory: vm.memory, runs: vm.runs}
}

func (f *family) rewind(id string) {
	f.t.Helper()
	vm := f.vms[id]
	name := pick(f.r, vm.points)
	if name == "" {
		return
	}
	f.note("rewind %s %s", id, name)
	_, err := f.s.Rewind(f.t.Context(), id, name)
	f.ok(err)
	point := vm.points[name]
	vm.disk, vm.memory, vm.runs, vm.suspended = point.disk, point.memory, point.runs || (vm.runs && !vm.suspended), false
	f.vms[id] = vm
}

// check asks every VM what it holds.
func (f *family) check() {
	f.t.Helper()
	for _, id := range slices.Sorted(maps.Keys(f.vms)) {
		vm := f.vms[id]
		if got := info(f.t, f.s, id).Status; vm.runs && !vm.suspended && got != lifecycle.Running || vm.suspended && got != lifecycle.Suspended {
			f.t.Fatalf("%s is %s\nafter %s", id, got, strings.Join(f.journal, ", "))
		}
		if !vm.runs || vm.suspended {
			continue
		}
		if got, want := say(f.t, f.s, id, "what"), vm.disk+"|"+vm.memory+"\n"; got != want {
			f.t.Fatalf("%s holds %q, not %q\nafter %s", id, got, want, strings.Join(f.journal, ", "))
		}
	}
	list, err := f.s.Images()
	f.ok(err)
	if len(list.Images) != len(f.images) {
		f.t.Fatalf("%d images, not %d\nafter %s", len(list.Images), len(f.images), strings.Join(f.journal, ", "))
	}
}

// TestNobodyIsBrokenByTheEndOfAnother does random things to VMs and images: each keeps what it had, whatever is deleted, and over
// the death of the service.
func TestNobodyIsBrokenByTheEndOfAnother(t *testing.T) {
	seeds := []uint64{1, 2, 3, rand.Uint64()}
	if text := os.Getenv("CAPSEM_TEST_SEED"); text != "" {
		var seed uint64
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			home := servicetest.Home(t)
			s, stop := servicetest.Start(t, servicetest.Options(t, home))
			f := &family{t: t, s: s, r: rand.New(rand.NewPCG(seed, 0)), vms: map[string]content{}, images: map[string]content{}}
			for i := range 80 {
				f.step()
				f.check()
				if i%25 == 24 {
					f.note("another service")
					stop()
					f.s, stop = servicetest.Start(t, servicetest.Options(t, home))
				}
			}
			for id := range f.vms { // those that are down, too
				f.resume(id)
			}
			f.check()
		})
	}
}
