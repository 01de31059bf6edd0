package checkpoint

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"capsem/core/template"
)

var want = template.Want{AssetVersion: "a", Cmdline: "c", CPUs: 1, MemoryMB: 256, DiskMB: 1024, Accelerator: "tcg", Host: "h"}

func make1(t *testing.T, dir string) {
	t.Helper()
	if err := Make(dir, want, func(f *os.File) ([]byte, error) { _, err := f.WriteString("state"); return []byte("extra"), err }); err != nil {
		t.Fatal(err)
	}
}

func TestACheckpointIsUsedOnce(t *testing.T) {
	dir := t.TempDir()
	if Exists(dir) {
		t.Error("there is one before it was made")
	}
	make1(t, dir)
	make1(t, dir) // a newer one takes its place
	saved, err := Open(dir, want)
	if err != nil {
		t.Fatal(err)
	}
	defer saved.State.Close()
	if text, err := io.ReadAll(saved.State); err != nil || string(text) != "state" || string(saved.Extra) != "extra" || saved.Copied {
		t.Errorf("%q, %+v, %v", text, saved, err)
	}
	other := t.TempDir()
	if err := Copy(dir, other); err != nil {
		t.Fatal(err)
	}
	if second, err := Open(other, want); err != nil || string(second.Extra) != "extra" || !second.Copied || second.State.Close() != nil {
		t.Errorf("the copy: %+v, %v", second, err)
	}
	back, err := Take(dir)
	if err != nil || Exists(dir) {
		t.Fatalf("taken: %v", err)
	}
	if err := back(); err != nil || !Exists(dir) {
		t.Fatalf("given back: %v", err)
	}
	if _, err := Take(dir); err != nil {
		t.Fatal(err)
	}
	if err := Discard(dir, false); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestAFailedSaveLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	full := errors.New("no space left")
	if err := Make(dir, want, func(*os.File) ([]byte, error) { return nil, full }); !errors.Is(err, full) {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestMoreThanCanBeGoneOnFromIsNotSaved(t *testing.T) {
	dir := t.TempDir()
	make1(t, dir)
	err := Make(dir, want, func(*os.File) ([]byte, error) { return make([]byte, maxExtra+1), nil })
	if !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if saved, err := Open(dir, want); err != nil || string(saved.Extra) != "extra" || saved.State.Close() != nil {
		t.Errorf("the one before: %v", err)
	}
}

func TestACheckpointThatDoesNotFitIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(dir string, w *template.Want) error{
		"another QEMU":        func(_ string, w *template.Want) error { w.Host = "x"; return nil },
		"another accelerator": func(_ string, w *template.Want) error { w.Accelerator = "kvm"; return nil },
		"another image":       func(_ string, w *template.Want) error { w.AssetVersion = "x"; return nil },
		"another size":        func(_ string, w *template.Want) error { w.CPUs = 2; return nil },
		"a flipped byte": func(dir string, _ *template.Want) error {
			return os.WriteFile(filepath.Join(dir, "suspended", "state"), []byte("stale"), 0o600)
		},
		"a changed extra": func(dir string, _ *template.Want) error {
			return os.WriteFile(filepath.Join(dir, "suspended", "extra"), []byte("stale"), 0o600)
		},
		"no extra": func(dir string, _ *template.Want) error { return os.Remove(filepath.Join(dir, "suspended", "extra")) },
		"no state": func(dir string, _ *template.Want) error { return os.Remove(filepath.Join(dir, "suspended", "state")) },
		"no sense": func(dir string, _ *template.Want) error {
			return os.WriteFile(filepath.Join(dir, "suspended", "checkpoint.json"), []byte("{"), 0o600)
		},
	} {
		dir, w := t.TempDir(), want
		make1(t, dir)
		if err := spoil(dir, &w); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, w); !errors.Is(err, ErrMisfit) {
			t.Errorf("%s: %v", name, err)
		}
		if err := Discard(dir, true); err != nil || Exists(dir) {
			t.Errorf("%s: discarded: %v", name, err)
		}
	}
}

func TestAFlippedByteIsNoticedWhereverItIs(t *testing.T) {
	dir := t.TempDir()
	make1(t, dir)
	if err := Check(dir); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{stateFile, extraFile} {
		path := filepath.Join(dir, name, file)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		spoiled := append([]byte(nil), text...)
		spoiled[len(spoiled)/2] ^= 1
		if err := os.WriteFile(path, spoiled, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Check(dir); !errors.Is(err, ErrMisfit) {
			t.Errorf("%s: %v", file, err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Check(dir); err != nil {
		t.Error(err)
	}
}
