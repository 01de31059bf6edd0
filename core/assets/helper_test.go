package assets

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"capsem/core/assets/initrd"
	"capsem/core/paths"
)

// oldAgent is never the agent of this binary.
var oldAgent = []byte("an agent of long ago")

var oldModules = []initrd.Module{{Name: "b.ko", Data: []byte("B")}, {Name: "a.ko", Data: []byte("A")}}

func newHome(t testing.TB) paths.Home { return paths.Home(t.TempDir()) }

// staged makes the files of a set, not published yet.
func staged(t testing.TB, home paths.Home, content string) (string, Entry) {
	t.Helper()
	dir, err := Staging(home)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, Initrd))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(initrd.Build(f, initrd.Input{Agent: oldAgent, Modules: oldModules}), f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{Kernel, "rootfs.squashfs"} {
		write(t, filepath.Join(dir, name), name+content)
	}
	some := Hash(nil)
	return dir, Entry{Arch: "amd64", Profile: "minimal", RootFS: "squashfs", Kernel: "6.12-cloud", Agent: Hash(oldAgent), Recipe: some, Lock: some}
}

// install publishes a set of three small files.
func install(t testing.TB, home paths.Home, arch, content string) *Set {
	t.Helper()
	lock, err := Lock(t.Context(), home, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, e := staged(t, home, content)
	e.Arch = arch
	s, err := Publish(home, dir, e)
	if err := errors.Join(err, lock.Release()); err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// flip changes one bit in place and puts the modification time back.
func flip(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text[len(text)/2] ^= 1
	return errors.Join(os.WriteFile(path, text, 0o600), os.Chtimes(path, info.ModTime(), info.ModTime()))
}
