package image

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"capsem/core/fault"
	"capsem/core/paths"
)

// qcow2 is a header of version 3 and something behind it.
func qcow2(change func(b []byte)) []byte {
	b := make([]byte, 200)
	binary.BigEndian.PutUint32(b, qcow2Magic)
	binary.BigEndian.PutUint32(b[4:], 3)
	binary.BigEndian.PutUint64(b[24:], 1024<<20)
	if change != nil {
		change(b)
	}
	return b
}

// exported is an image with a real disk header, as an archive.
func exported(t *testing.T, home paths.Home, disk []byte) []byte {
	t.Helper()
	dir, err := Images(home).Begin("base")
	if err != nil {
		t.Fatal(err)
	}
	vm := stopped(t)
	err = errors.Join(os.WriteFile(vm.SystemDisk(), disk, 0o600), os.MkdirAll(home.AssetVersion("v1"), 0o700), CopyVM(vm, dir))
	if err != nil {
		t.Fatal(err)
	}
	i, err := Finish(dir, Manifest{Name: "base", AssetVersion: "v1", CPUs: 1, MemoryMB: 256, DiskMB: 1024, Env: map[string]string{"A": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := i.Export(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAnImageComesBackFromItsArchive(t *testing.T) {
	home := paths.Home(t.TempDir())
	archive := exported(t, home, qcow2(nil))
	i, err := Import(home, "again", bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	vm := t.TempDir()
	if err := i.Place(vm, false); err != nil {
		t.Fatal(err)
	}
	work, err := os.ReadFile(filepath.Join(vm, "workspace", "sub", "file"))
	link, err2 := os.Readlink(filepath.Join(vm, "workspace", "link"))
	if errors.Join(err, err2) != nil || string(work) != "work" || link != "/etc/passwd" || i.Name != "again" || i.Env["A"] != "b" {
		t.Errorf("%q %q %+v, %v", work, link, i, errors.Join(err, err2))
	}
}

func TestAnArchiveThatWasChangedIsRefusedWhole(t *testing.T) {
	home := paths.Home(t.TempDir())
	archive := exported(t, home, qcow2(nil))
	for at := 0; at < len(archive); at += max(1, len(archive)/40) {
		changed := bytes.Clone(archive)
		changed[at] ^= 0x10
		if i, err := Import(home, "x", bytes.NewReader(changed)); err == nil {
			if i.DiskBLAKE3 == "" {
				t.Errorf("a byte changed at %d: %+v", at, i)
			}
			if err := Images(home).Delete("x"); err != nil { // padding of tar, or the header of zstd: nothing of the image has changed
				t.Fatal(err)
			}
		}
		if _, err := Import(home, "x", bytes.NewReader(archive[:at])); err == nil {
			t.Errorf("cut at %d: it is taken", at)
		}
	}
	if names, err := os.ReadDir(home.Images()); err != nil || len(names) != 1 {
		t.Errorf("left: %v, %v", names, err)
	}
}

func TestADiskThatWouldOpenOtherFilesIsRefused(t *testing.T) {
	for name, change := range map[string]func(b []byte){
		"a backing file": func(b []byte) { binary.BigEndian.PutUint64(b[8:], 104) },
		"external data":  func(b []byte) { binary.BigEndian.PutUint64(b[72:], qcow2External) },
		"encrypted":      func(b []byte) { binary.BigEndian.PutUint32(b[32:], 1) },
		"version 2":      func(b []byte) { binary.BigEndian.PutUint32(b[4:], 2) },
		"raw":            func(b []byte) { b[0] = 0 },
		"another size":   func(b []byte) { binary.BigEndian.PutUint64(b[24:], 1<<50) },
	} {
		home := paths.Home(t.TempDir())
		if _, err := Import(home, "x", bytes.NewReader(exported(t, home, qcow2(change)))); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNothingIsWrittenOutsideOfTheImage(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"above":       {Typeflag: tar.TypeReg, Name: "workspace/../../evil"},
		"absolute":    {Typeflag: tar.TypeReg, Name: "/evil"},
		"memory":      {Typeflag: tar.TypeReg, Name: "suspended/state"},
		"a device":    {Typeflag: tar.TypeChar, Name: "workspace/null"},
		"a hard link": {Typeflag: tar.TypeLink, Name: "workspace/x", Linkname: "/etc/passwd"},
		"other file":  {Typeflag: tar.TypeReg, Name: "vm.json"},
	} {
		var b bytes.Buffer
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(z)
		h.Mode = 0o600
		if err := errors.Join(w.WriteHeader(&h), w.Close(), z.Close()); err != nil {
			t.Fatal(err)
		}
		home := paths.Home(t.TempDir())
		if _, err := Import(home, "x", &b); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "does not belong") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A link in the workspace leads nowhere when files are made beneath it.
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w, outside := tar.NewWriter(z), t.TempDir()
	err = errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "workspace/out", Linkname: outside}),
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "workspace/out/evil", Mode: 0o600}), w.Close(), z.Close())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Import(paths.Home(t.TempDir()), "x", &b); err == nil {
		t.Error("a file beneath a link is taken")
	}
	if names, _ := os.ReadDir(outside); len(names) != 0 {
		t.Errorf("outside: %v", names)
	}
}

func TestALinkInTheWorkspaceLeadsToNothingOfTheImage(t *testing.T) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "workspace/l", Linkname: ".."}),
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "workspace/l/suspended/state", Mode: 0o600}), w.Close(), z.Close())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Import(paths.Home(t.TempDir()), "x", &b); err == nil || strings.Contains(err.Error(), "too early") {
		t.Errorf("memory of a stranger is taken: %v", err)
	}
}

func TestAnArchiveIsNoLargerThanItMayBe(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"a long description": {Typeflag: tar.TypeReg, Name: "image.json", Size: maxManifest + 1},
		"a huge disk":        {Typeflag: tar.TypeReg, Name: "system.qcow2", Size: 1 << 60},
		"a long name":        {Typeflag: tar.TypeReg, Name: "workspace/" + strings.Repeat("x/", 3000) + "x"},
	} {
		var b bytes.Buffer
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(z)
		h.Mode = 0o600
		err = w.WriteHeader(&h)
		_ = w.Flush() // the content is missing
		if err := errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := Import(paths.Home(t.TempDir()), "x", &b); err == nil || strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzImport reads any archive.
func FuzzImport(f *testing.F) {
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Import(paths.Home(t.TempDir()), "x", bytes.NewReader(data)); err == nil {
			t.Error("it is an image")
		}
	})
}
