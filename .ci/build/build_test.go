package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// compile builds a program that prints nothing, with the extra arguments given.
func compile(t *testing.T, env string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"go.mod":  "module x\n\ngo 1.26\n",
		"main.go": "package main\n\nimport _ \"os/user\"\n\nfunc main() {}\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", append([]string{"build", "-o", "x"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile: %v: %s", err, out)
	}
	return filepath.Join(dir, "x")
}

func TestOnlyAStaticBinaryPasses(t *testing.T) {
	if err := checkStatic(compile(t, "CGO_ENABLED=0")); err != nil {
		t.Errorf("static binary: %v", err)
	}
	if err := checkStatic(compile(t, "CGO_ENABLED=1")); !errors.Is(err, errNotStatic) {
		t.Errorf("binary that uses the C library: %v, want %v", err, errNotStatic)
	}
	if err := checkStatic(compile(t, "CGO_ENABLED=0", "-buildmode=pie")); !errors.Is(err, errNotStatic) {
		t.Errorf("position independent binary: %v, want %v", err, errNotStatic)
	}
}

func TestPackLeavesACurrentFileAloneAndReplacesAnyOther(t *testing.T) {
	dir := t.TempDir()
	raw, packed := filepath.Join(dir, "agent"), filepath.Join(dir, "guestbin", "agent.zst")
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	packs := func(why string, changes bool) {
		t.Helper()
		old := time.Unix(1000, 0)
		_ = os.Chtimes(packed, old, old) // absent the first time
		if err := pack(raw, packed); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(packed)
		if err != nil {
			t.Fatal(err)
		}
		if got := !info.ModTime().Equal(old); got != changes {
			t.Errorf("%s: written %v, want %v", why, got, changes)
		}
		content, err := os.ReadFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := holds(packed, content); err != nil || !same {
			t.Errorf("%s: packed file does not hold the agent: %v", why, err)
		}
	}
	put(raw, "one")
	packs("absent", true)
	packs("unchanged", false)
	put(raw, "two")
	packs("agent changed", true)
	put(packed, "garbage")
	packs("packed file broken", true)
}

func TestHardLinkReplacesWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	target, name := filepath.Join(dir, "capsem"), filepath.Join(dir, "capsem-service")
	for _, path := range []string{target, name, name + ".new"} {
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := hardLink(target, name); err != nil {
			t.Fatal(err)
		}
		a, err := os.Stat(target)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(a, b) {
			t.Error("the link is not the binary")
		}
	}
}

func TestStampTakesTheTimeFromTheEnvironment(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	s, err := readStamp(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if s.built != "1970-01-02T00:00:00Z" || s.commit != "unknown" || s.version == "" {
		t.Errorf("outside a repository: %+v", s)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if _, err := readStamp(t.Context(), t.TempDir()); err == nil {
		t.Error("a time that is no number was taken")
	}
}
