package assetstest

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"capsem/core/assets"
	"capsem/core/assets/initrd"
	"capsem/core/paths"
)

// stock fills an empty cache with an image of a few bytes and an old agent.
func stock(t *testing.T) (cache paths.Home) {
	t.Helper()
	t.Setenv("CAPSEM_TEST_CACHE", t.TempDir())
	cache, err := Cache(Minimal)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := assets.Lock(t.Context(), cache, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := assets.Staging(cache)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, assets.Initrd))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(initrd.Build(f, initrd.Input{Agent: []byte("old")}), f.Close())
	for _, name := range []string{assets.Kernel, "rootfs.squashfs"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	some := assets.Hash(nil)
	_, failed := assets.Publish(cache, dir, assets.Entry{
		Arch: runtime.GOARCH, Profile: Minimal, RootFS: "squashfs", Kernel: "6.12", Agent: some, Recipe: some, Lock: some,
	})
	if err := errors.Join(err, failed, lock.Release()); err != nil {
		t.Fatal(err)
	}
	return cache
}

func TestEachTestGetsAnImageOfItsOwnWithTheCurrentAgent(t *testing.T) {
	cache := stock(t)
	var sets []*assets.Set
	for range 2 {
		home := Home(t)
		if len(home.Dir()) > 20 || !strings.HasPrefix(home.Dir(), "/tmp/") {
			t.Errorf("%s is no short path", home)
		}
		set, err := assets.Current(home, runtime.GOARCH)
		if err != nil {
			t.Fatal(err)
		}
		if changed, err := assets.Refresh(t.Context(), home, runtime.GOARCH, nil); err != nil || changed {
			t.Errorf("the agent is not that of this binary: %v, %v", changed, err)
		}
		sets = append(sets, set)
	}
	if err := os.WriteFile(filepath.Join(sets[0].Dir(), assets.Kernel), []byte("spoilt!"), 0o600); err != nil {
		t.Fatal(err)
	}
	kept, err := assets.Current(cache, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sets[1].Verify(t.Context()), kept.Verify(t.Context())); err != nil {
		t.Errorf("a test that alters its image alters others: %v", err)
	}
	if sets[0].Verify(t.Context()) == nil {
		t.Error("nothing was altered")
	}
}

func TestAnAlteredCacheIsNotUsed(t *testing.T) {
	cache := stock(t)
	if !whole(t.Context(), cache) {
		t.Fatal("a good cache is not used")
	}
	set, err := assets.Current(cache, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(set.Dir(), assets.Kernel), []byte("VMLINUZ"), 0o600); err != nil {
		t.Fatal(err)
	}
	if whole(t.Context(), cache) {
		t.Error("it is used")
	}
}
