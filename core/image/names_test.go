package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/proto"
)

func TestNamesThatAreNoTextComeBackFromAnArchive(t *testing.T) {
	home := paths.Home(t.TempDir())
	vm := stopped(t)
	file, link := filepath.Join(vm.Workspace(), "latin-\xe9"), filepath.Join(vm.Workspace(), "\xff")
	dir, err := Images(home).Begin("base")
	err = errors.Join(err, os.WriteFile(file, []byte("text"), 0o600), os.Symlink("to-\xe9", link), os.WriteFile(vm.SystemDisk(), qcow2(nil), 0o600),
		os.MkdirAll(home.AssetVersion("v1"), 0o700), CopyVM(vm, dir))
	if err != nil {
		t.Fatal(err)
	}
	i, err := Finish(dir, Manifest{Name: "base", AssetVersion: "v1", CPUs: 1, MemoryMB: 256, DiskMB: 1024})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := i.Export(&b); err != nil {
		t.Fatal(err)
	}
	back, err := Import(home, "back", &b)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(back.Dir, workspace, filepath.Base(file)))
	target, err2 := os.Readlink(filepath.Join(back.Dir, workspace, filepath.Base(link)))
	if err := errors.Join(err, err2); err != nil || string(text) != "text" || target != "to-\xe9" {
		t.Errorf("%q, %q, %v", text, target, err)
	}
}

func TestTheHashesOfAnArchiveTakeNoMoreThanItsFilesNeed(t *testing.T) {
	var list strings.Builder
	for i := range 1 << 20 {
		list.WriteString(`"` + strconv.Itoa(i) + `":"",`)
	}
	text := "{" + list.String() + `"x":""}`
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: sumsFile, Mode: 0o600, Size: int64(len(text))})
	_, err2 := w.Write([]byte(text))
	if err := errors.Join(err, err2, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(paths.Home(t.TempDir()), "x", &b); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "cannot be read") {
		t.Error(err)
	}
}

func TestAnArchiveWhoseVMsCouldNotBeDescribedIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Manifest){
		"too many CPUs":     func(m *Manifest) { m.CPUs = 1 << 20 },
		"too much memory":   func(m *Manifest) { m.MemoryMB = 1 << 40 },
		"a variable":        func(m *Manifest) { m.Env = map[string]string{"A=B": "c"} },
		"another's content": func(m *Manifest) { m.Env = map[string]string{"A": "b\x00c"} },
	} {
		home := paths.Home(t.TempDir())
		vm := stopped(t)
		dir, err := Images(home).Begin("base")
		err = errors.Join(err, os.WriteFile(vm.SystemDisk(), qcow2(nil), 0o600), os.MkdirAll(home.AssetVersion("v1"), 0o700), CopyVM(vm, dir))
		if err != nil {
			t.Fatal(err)
		}
		m := Manifest{Name: "base", AssetVersion: "v1", CPUs: 1, MemoryMB: 256, DiskMB: 1024}
		change(&m)
		i, err := Finish(dir, m)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := i.Export(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := Import(home, "back", &b); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnArchiveOpensNeitherTheHostNorTheNetwork(t *testing.T) {
	home := paths.Home(t.TempDir())
	vm := stopped(t)
	dir, err := Images(home).Begin("base")
	err = errors.Join(err, os.WriteFile(vm.SystemDisk(), qcow2(nil), 0o600), os.MkdirAll(home.AssetVersion("v1"), 0o700), CopyVM(vm, dir))
	if err != nil {
		t.Fatal(err)
	}
	i, err := Finish(dir, Manifest{
		Name: "base", AssetVersion: "v1", CPUs: 1, MemoryMB: 256, DiskMB: 1024,
		Mounts: []proto.Mount{{Host: "/etc", Guest: "/mnt/etc"}}, Policy: "anything may go anywhere",
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := i.Export(&b); err != nil {
		t.Fatal(err)
	}
	back, err := Import(home, "back", &b)
	if err != nil || len(back.Mounts) != 0 || back.Policy != "" {
		t.Errorf("%+v, %v", back, err)
	}
}
