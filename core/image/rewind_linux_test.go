package image

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"capsem/core/paths"
)

// staged is a VM with a rewind that was committed, and another that is staged.
func staged(t *testing.T) paths.VM {
	t.Helper()
	vm := stopped(t)
	dir, err := Checkpoints(vm, "id").Begin("one")
	must(t, err)
	must(t, CopyVM(vm, dir))
	i, err := Finish(dir, Manifest{Name: "one", AssetVersion: "v", CPUs: 1, MemoryMB: 256, DiskMB: 1024})
	must(t, err)
	must(t, errors.Join(i.Stage(vm), Commit(vm), i.Stage(vm)))
	return vm
}

// A removal that is cut short is one that fails here: of a file that even root may not remove.
func TestARewindThatIsHalfRemovedIsNotCompleted(t *testing.T) {
	for what, give := range map[string]func(paths.VM) error{
		"given up for another": Commit,
		"completed": func(vm paths.VM) error {
			must(t, os.RemoveAll(vm.Rewind()+newSuffix))
			return FinishRewind(vm, func(bool) error { return nil })
		},
	} {
		t.Run(what, func(t *testing.T) {
			vm := staged(t)
			stuck := filepath.Join(vm.Rewind(), "stuck")
			must(t, os.WriteFile(stuck, nil, 0o600))
			loosen := immovable(t, stuck)
			if err := give(vm); err == nil {
				t.Fatal("nothing was stuck")
			}
			if Rewinding(vm) {
				t.Error("what is half removed looks like a rewind to complete")
			}
			loosen()
			must(t, Unstage(vm))
			if names, err := filepath.Glob(vm.Rewind() + "*"); err != nil || len(names) != 0 {
				t.Errorf("left: %v, %v", names, err)
			}
		})
	}
}
