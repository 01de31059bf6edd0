package image

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// contents lists a tree: names, types, permissions, and what is in files.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		text, _ := os.Readlink(p)
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text = string(data)
		}
		fmt.Fprintf(&b, "%q %s %q\n", rel, info.Mode(), text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// edit changes something in a tree at random.
func edit(t *testing.T, r *rand.Rand, dir string) {
	t.Helper()
	name := filepath.Join(dir, string(rune('a'+r.IntN(4))), string(rune('a'+r.IntN(4))))
	var err error
	switch r.IntN(7) {
	case 0:
		err = os.RemoveAll(filepath.Dir(name))
	case 1:
		err = os.RemoveAll(name)
	case 2:
		if err = os.RemoveAll(name); err == nil && os.MkdirAll(filepath.Dir(name), 0o755) == nil {
			err = os.Symlink(strconv.Itoa(r.IntN(9)), name)
		}
	case 3:
		if info, bad := os.Lstat(name); bad == nil && info.Mode().IsRegular() {
			err = os.Chmod(name, fs.FileMode(0o600|r.IntN(0o100)))
		}
	default: // the same size and the same time as another edit
		if info, bad := os.Lstat(name); bad == nil && !info.Mode().IsRegular() {
			err = os.RemoveAll(name)
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(name), 0o755)
		}
		if err == nil {
			err = os.WriteFile(name, []byte{byte('0' + r.IntN(10))}, 0o600)
		}
		if err == nil {
			err = os.Chtimes(name, time.Unix(1, 0), time.Unix(1, 0))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEachPassOfAMirrorMakesTheSame(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	from, to := t.TempDir(), t.TempDir()
	m := NewMirror(from, to)
	if err := m.Pass(); err != nil { // nothing is there yet
		t.Fatal(err)
	}
	tree := filepath.Join(from, workspace)
	if err := os.Mkdir(tree, 0o750); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		for range r.IntN(6) {
			edit(t, r, tree)
		}
		if err := m.Pass(); err != nil {
			t.Fatalf("seed %d, pass %d: %v", seed, i, err)
		}
		if got, want := contents(t, filepath.Join(to, workspace)), contents(t, tree); got != want {
			t.Fatalf("seed %d, pass %d: the copy is\n%s, not\n%s", seed, i, got, want)
		}
	}
}
