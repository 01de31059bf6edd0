package image

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"capsem/core/fault"
	"capsem/core/paths"
)

// stopped is the directory of a VM with a disk and a workspace.
func stopped(t *testing.T) paths.VM {
	t.Helper()
	vm := paths.VM(t.TempDir())
	err := errors.Join(os.WriteFile(vm.SystemDisk(), []byte("disk"), 0o600), os.MkdirAll(filepath.Join(vm.Workspace(), "sub"), 0o700),
		os.WriteFile(filepath.Join(vm.Workspace(), "sub", "file"), []byte("work"), 0o600), os.Symlink("/etc/passwd", filepath.Join(vm.Workspace(), "link")))
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func made(t *testing.T, home paths.Home, name string) *Image {
	t.Helper()
	dir, err := Images(home).Begin(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := CopyVM(stopped(t), dir); err != nil {
		t.Fatal(err)
	}
	i, err := Finish(dir, Manifest{Name: name, AssetVersion: "v", CPUs: 1, MemoryMB: 256, DiskMB: 1024})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestAnImageIsMadePlacedAndDeleted(t *testing.T) {
	home := paths.Home(t.TempDir())
	i := made(t, home, "base")
	vm := t.TempDir()
	if err := i.Place(vm, true); err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(filepath.Join(vm, "system.qcow2"))
	work, err2 := os.ReadFile(filepath.Join(vm, "workspace", "sub", "file"))
	link, err3 := os.Readlink(filepath.Join(vm, "workspace", "link"))
	if errors.Join(err, err2, err3) != nil || string(disk) != "disk" || string(work) != "work" || link != "/etc/passwd" {
		t.Errorf("%q %q %q, %v", disk, work, link, errors.Join(err, err2, err3))
	}
	if err := Images(home).Delete("base"); err != nil {
		t.Fatal(err)
	}
	if _, err := Images(home).Find("base"); !fault.Is(err, fault.NotFound) {
		t.Errorf("after its deletion: %v", err)
	}
	if err := Images(home).Delete("base"); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestNamesAreTakenOnceAndMustBeNames(t *testing.T) {
	home := paths.Home(t.TempDir())
	made(t, home, "base")
	for name, code := range map[string]fault.Code{"base": fault.Conflict, "": fault.Invalid, "../x": fault.Invalid, "a.new": fault.Invalid} {
		if _, err := Images(home).Begin(name); !fault.Is(err, code) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "..", "../images/base", "base/"} {
		if _, err := Images(home).Find(name); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q is found: %v", name, err)
		}
	}
}

func TestADamagedImageIsRefused(t *testing.T) {
	home := paths.Home(t.TempDir())
	i := made(t, home, "base")
	if err := os.WriteFile(filepath.Join(i.Dir, "system.qcow2"), []byte("dish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := i.Place(t.TempDir(), false); err == nil {
		t.Error("a changed disk is used")
	}
	if err := os.WriteFile(filepath.Join(i.Dir, "image.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Images(home).Find("base"); !fault.Is(err, fault.Internal) {
		t.Errorf("a damaged description: %v", err)
	}
	if all, err := Images(home).List(); err != nil || len(all) != 0 {
		t.Errorf("listed: %v, %v", all, err)
	}
}

func TestWhatIsHalfMadeIsSwept(t *testing.T) {
	home := paths.Home(t.TempDir())
	made(t, home, "base")
	if _, err := Images(home).Begin("half"); err != nil {
		t.Fatal(err)
	}
	if err := Images(home).Sweep(); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(home.Images()); err != nil || len(names) != 1 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// FuzzManifest reads any image.json.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"name":"x","asset_version":"v","cpus":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := filepath.Join(t.TempDir(), "x")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "image.json"), text, 0o600)); err != nil {
			t.Fatal(err)
		}
		if i, err := load(dir); err == nil && i.Name != "x" {
			t.Errorf("an image named %q is taken", i.Name)
		}
	})
}
