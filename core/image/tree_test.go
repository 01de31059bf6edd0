package image

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestAWorkspaceIsCopiedAsItIs(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	old := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	for _, dir := range []string{"sub/deep", "empty"} {
		if err := os.MkdirAll(filepath.Join(from, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"script": 0o755, "sub/deep/plain": 0o640, "\xff\n": 0o600} {
		path := filepath.Join(from, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"out": "/etc/passwd", "broken": "nowhere", "sub/up": ".."} {
		if err := os.Symlink(target, filepath.Join(from, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(from, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sub/deep/plain", "sub/deep"} {
		if err := os.Chtimes(filepath.Join(from, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyTree(from, to); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"script": 0o755, "sub/deep/plain": 0o640, "\xff\n": 0o600} {
		info, err := os.Lstat(filepath.Join(to, name))
		text, _ := os.ReadFile(filepath.Join(to, name))
		if err != nil || info.Mode() != mode || string(text) != name {
			t.Errorf("%q: %v, %v, %q", name, info, err, text)
		}
	}
	for name, target := range map[string]string{"out": "/etc/passwd", "broken": "nowhere", "sub/up": ".."} {
		if got, err := os.Readlink(filepath.Join(to, name)); got != target {
			t.Errorf("%s leads to %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"sub/deep/plain", "sub/deep"} {
		if info, err := os.Stat(filepath.Join(to, name)); err != nil || !info.ModTime().Equal(old) {
			t.Errorf("%s is of %v", name, info.ModTime())
		}
	}
	if _, err := os.Lstat(filepath.Join(to, "fifo")); err == nil {
		t.Error("a fifo was copied")
	}
	if err := copyTree(filepath.Join(from, "nothing"), filepath.Join(to, "x")); err != nil {
		t.Error(err)
	}
}
