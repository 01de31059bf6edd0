package image

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// deep goes down a chain of directories whose path is longer than the kernel takes, and makes it if it is to be fresh.
func deep(t *testing.T, top string, fresh bool) *os.File {
	t.Helper()
	at, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for range 50 {
		name := strings.Repeat("d", 200)
		if err == nil && fresh {
			err = unix.Mkdirat(at, name, 0o755)
		}
		next := -1
		if err == nil {
			next, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
		_ = unix.Close(at)
		at = next
	}
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(at), "deep")
}

func TestWorkspacesAreCopiedHoweverDeep(t *testing.T) {
	vm := stopped(t)
	bottom := deep(t, vm.Workspace(), true)
	defer bottom.Close()
	fd, err := unix.Openat(int(bottom.Fd()), "f", unix.O_WRONLY|unix.O_CREAT, 0o640)
	if err == nil {
		_, err = unix.Write(fd, []byte("text"))
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	copied, mirrored := t.TempDir(), t.TempDir()
	m := NewMirror(vm.Dir(), mirrored)
	for name, do := range map[string]func() error{
		"copy": func() error { return CopyWorkspace(vm.Dir(), copied) },
		"mirror": func() error {
			if err := m.Pass(); err != nil {
				return err
			}
			return m.Pass()
		},
	} {
		if err := do(); err != nil {
			t.Fatalf("%s: %.300s", name, err)
		}
	}
	for _, to := range []string{copied, mirrored} {
		at := deep(t, filepath.Join(to, workspace), false)
		text, err := os.ReadFile(filepath.Join("/proc/self/fd", strconv.Itoa(int(at.Fd())), "f"))
		if err != nil || string(text) != "text" {
			t.Errorf("%q, %v", text, err)
		}
		_ = at.Close()
	}
}
