package image

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"capsem/core/paths"
	"capsem/core/tree"
)

// forbidding are the permissions of what forbid makes.
var forbidding = map[string]fs.FileMode{
	".": fs.ModeDir | 0o555, "none": fs.ModeDir, "none/deep": fs.ModeDir, "search": fs.ModeDir | 0o111, "secret": 0, "write": 0o222,
}

// forbid gives a VM a workspace that its owner may not look into.
func forbid(t *testing.T, vm paths.VM) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(vm.Workspace(), "none", "deep"), 0o700))
	must(t, os.MkdirAll(filepath.Join(vm.Workspace(), "search"), 0o700))
	for _, name := range []string{"secret", "write", "none/deep/f", "search/f"} {
		must(t, os.WriteFile(filepath.Join(vm.Workspace(), name), []byte(name), 0o600))
	}
	for _, name := range []string{"none/deep", "none", "search", "secret", "write", "."} {
		must(t, os.Chmod(filepath.Join(vm.Workspace(), name), forbidding[name].Perm()))
	}
	t.Cleanup(func() { must(t, tree.Remove(vm.Workspace())) })
}

// forbidden checks that a directory has such a workspace.
func forbidden(t *testing.T, what, dir string) {
	t.Helper()
	d, err := tree.Open(filepath.Join(dir, workspace))
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer d.Close()
	if st, err := d.Stat(); err != nil || st.Mode != forbidding["."] {
		t.Errorf("%s: the workspace has mode %s, %v", what, st.Mode, err)
	}
	for _, name := range []string{"none", "search", "secret", "write"} {
		if st, err := d.Lstat(name); err != nil || st.Mode != forbidding[name] {
			t.Errorf("%s: %s has mode %s, %v", what, name, st.Mode, err)
		}
	}
	err = inDir(d, "none", func(none *tree.Dir) error {
		if st, err := none.Lstat("deep"); err != nil || st.Mode != forbidding["none/deep"] {
			t.Errorf("%s: none/deep has mode %s, %v", what, st.Mode, err)
		}
		return inDir(none, "deep", func(deep *tree.Dir) error {
			f, err := deep.File("f")
			if err != nil {
				return err
			}
			defer f.Close()
			var b bytes.Buffer
			if _, err := b.ReadFrom(f); err != nil || b.String() != "none/deep/f" {
				t.Errorf("%s: it has %q, %v", what, b.String(), err)
			}
			return nil
		})
	})
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func TestWorkspacesWithoutPermissionsAreCopiedAndRemoved(t *testing.T) {
	if !asUser(t) {
		return
	}
	home, vm := paths.Home(t.TempDir()), stopped(t)
	forbid(t, vm)
	dir, err := Images(home).Begin("base")
	must(t, err)
	must(t, CopyVM(vm, dir))
	i, err := Finish(dir, Manifest{Name: "base", AssetVersion: "v", CPUs: 1, MemoryMB: 256, DiskMB: 1024})
	must(t, err)
	forbidden(t, "the image", i.Dir)
	var copies sync.WaitGroup
	for range 3 { // at once, of one image
		to := t.TempDir()
		t.Cleanup(func() { must(t, tree.Remove(to)) })
		copies.Go(func() {
			if err := i.Place(to, true); err != nil {
				t.Error(err)
				return
			}
			forbidden(t, "a VM of the image", to)
		})
	}
	copies.Wait()
	fork := t.TempDir()
	m := NewMirror(vm.Dir(), fork)
	for range 3 {
		must(t, m.Pass())
		forbidden(t, "a fork", fork)
	}
	must(t, tree.Remove(fork))
	forbidden(t, "the VM", vm.Dir())
	var b bytes.Buffer
	must(t, i.Export(&b))
	half, err := Images(home).Begin("half")
	must(t, err)
	must(t, CopyWorkspace(vm.Dir(), half))
	must(t, Images(home).Sweep())
	must(t, Images(home).Delete("base"))
	if names, err := os.ReadDir(home.Images()); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

func TestAVMIsRewoundFromAndToWorkspacesWithoutPermissions(t *testing.T) {
	if !asUser(t) {
		return
	}
	vm := stopped(t)
	forbid(t, vm)
	dir, err := Checkpoints(vm, "id").Begin("one")
	must(t, err)
	must(t, CopyVM(vm, dir))
	i, err := Finish(dir, Manifest{Name: "one", AssetVersion: "v", CPUs: 1, MemoryMB: 256, DiskMB: 1024})
	must(t, err)
	for range 2 {
		must(t, i.Stage(vm))
		must(t, Unstage(vm))
		must(t, i.Stage(vm))
		must(t, Commit(vm))
		must(t, FinishRewind(vm, func(bool) error { return nil }))
		forbidden(t, "the VM", vm.Dir())
	}
	must(t, Checkpoints(vm, "id").Delete("one"))
}
