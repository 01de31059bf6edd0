//go:build linux

package boot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSetWritesOnlyWhatIsThere(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "value")
	if err := set(path, "1"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a missing setting: %v", err)
	}
	if err := os.WriteFile(path, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := set(path, "1"); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "1" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNamesAreLookedUpOnThisMachineOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink("../run/systemd/resolve/stub-resolv.conf", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("nameserver 192.0.2.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "file", "none"} {
		path := filepath.Join(dir, name)
		for range 2 {
			if err := resolver(path); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(got)) != "nameserver 127.0.0.1" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
