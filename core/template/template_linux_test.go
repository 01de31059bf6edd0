package template

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/paths"
)

var want = Want{AssetVersion: "abc", Cmdline: "ro quiet", CPUs: 2, MemoryMB: 4, DiskMB: 1024, Accelerator: "tcg", Host: "qemu 1"}

// made is a finished template with some memory at odd places.
func made(t *testing.T, home paths.Home) *Template {
	t.Helper()
	dir, err := Draft(home)
	if err != nil {
		t.Fatal(err)
	}
	ram, err := NewMemory(want.MemoryMB)
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	for at, text := range map[int64]string{0: "first", 70_001: "second", 4<<20 - 4: "last"} {
		if _, err := ram.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(SaveMemory(ram, filepath.Join(dir, RAMFile)), os.WriteFile(filepath.Join(dir, StateFile), []byte("state"), 0o600),
		os.WriteFile(filepath.Join(dir, DiskFile), []byte("disk"), 0o600), os.WriteFile(filepath.Join(dir, "serial.log"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	tpl, err := Finish(home, dir, want)
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

func TestATemplateIsFoundByAllThatItDependsOn(t *testing.T) {
	home := paths.Home(t.TempDir())
	if _, err := Find(home, want); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	made(t, home)
	got, err := Find(home, want)
	if err != nil || got.Want != want {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, change := range map[string]func(w *Want){
		"image": func(w *Want) { w.AssetVersion = "x" }, "command line": func(w *Want) { w.Cmdline = "" }, "CPUs": func(w *Want) { w.CPUs = 1 },
		"memory": func(w *Want) { w.MemoryMB = 8 }, "disk": func(w *Want) { w.DiskMB = 1 }, "accelerator": func(w *Want) { w.Accelerator = "kvm" },
		"host": func(w *Want) { w.Host = "qemu 2" },
	} {
		other := want
		change(&other)
		if _, err := Find(home, other); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if names, err := os.ReadDir(got.Dir); err != nil || len(names) != 4 {
		t.Errorf("files: %v, %v", names, err)
	}
	if err := Remove(home, got.Key()); err != nil {
		t.Fatal(err)
	}
	if all, err := List(home); err != nil || len(all) != 0 {
		t.Errorf("after its removal: %v, %v", all, err)
	}
}

func TestMemoryIsWhatWasSavedAndCannotBeChanged(t *testing.T) {
	tpl := made(t, paths.Home(t.TempDir()))
	if info, err := os.Stat(tpl.Path(RAMFile)); err != nil || info.Sys().(*syscall.Stat_t).Blocks*512 > 1<<20 {
		t.Errorf("it is not sparse: %+v, %v", info, err)
	}
	ram, err := tpl.Memory()
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	got := make([]byte, 4<<20)
	if _, err := ram.ReadAt(got, 0); err != nil || !bytes.HasPrefix(got, []byte("first")) || !bytes.Equal(got[70_001:70_007], []byte("second")) || !bytes.HasSuffix(got, []byte("last")) {
		t.Errorf("the memory is not what was saved (%v)", err)
	}
	if _, err := ram.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it can be written")
	}
	if _, err := unix.Mmap(int(ram.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		t.Error("it can be mapped for writing")
	}
	private, err := unix.Mmap(int(ram.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	private[0] = 'F'
	if err := unix.Munmap(private); err != nil {
		t.Fatal(err)
	}
}

func TestAFlippedByteIsNoticedInEachFile(t *testing.T) {
	for _, name := range []string{RAMFile, StateFile, DiskFile} {
		tpl := made(t, paths.Home(t.TempDir()))
		if err := os.Chmod(tpl.Path(name), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(tpl.Path(name), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("S"), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if name == RAMFile {
			_, err = tpl.Memory()
		} else {
			_, err = tpl.Open(name)
		}
		if !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Truncate(tpl.Path(name), 2); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(tpl.Dir); !errors.Is(err, errDamaged) {
			t.Errorf("%s cut: %v", name, err)
		}
	}
}

func TestWhatIsHalfMadeIsSweptAndNeverUsed(t *testing.T) {
	home := paths.Home(t.TempDir())
	tpl := made(t, home)
	if _, err := Draft(home); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(Dir(home), "0123456789abcdef"), 0o700); err != nil {
		t.Fatal(err)
	}
	if all, err := List(home); err != nil || len(all) != 1 {
		t.Errorf("listed are %v, %v", all, err)
	}
	if err := Sweep(home); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(Dir(home)); err != nil || len(names) != 1 || names[0].Name() != tpl.Key() {
		t.Errorf("left are %v, %v", names, err)
	}
}

// FuzzLoad reads any manifest.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"asset_version":"x","cpus":1,"files":{"ram":{"size":1,"blake3":"00"}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ManifestFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil {
			t.Error("a template without files is taken")
		}
	})
}
