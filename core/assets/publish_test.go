package assets

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"capsem/core/paths"
)

// pin makes a VM that boots a set.
func pin(t *testing.T, vm paths.VM, version string) {
	t.Helper()
	if err := os.MkdirAll(vm.Dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{"asset_version": version})
	if err != nil {
		t.Fatal(err)
	}
	write(t, vm.Spec(), string(text))
}

func versions(t *testing.T, home paths.Home) (out []string) {
	t.Helper()
	sets, err := All(home)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sets {
		if err := s.Verify(t.Context()); err != nil {
			t.Error(err)
		}
		out = append(out, s.Version)
	}
	slices.Sort(out)
	return out
}

func TestTheVersionIsThatOfTheContentAndTheArchitecture(t *testing.T) {
	t.Parallel()
	a, b := newHome(t), newHome(t)
	first := install(t, a, "amd64", "1").Version
	for _, tt := range []struct {
		name, arch, content string
		same                bool
	}{{"same", "amd64", "1", true}, {"other content", "amd64", "2", false}, {"other architecture", "arm64", "1", false}} {
		if got := install(t, b, tt.arch, tt.content).Version; (got == first) != tt.same || len(got) != 12 {
			t.Errorf("%s: %s after %s", tt.name, got, first)
		}
	}
}

func TestOnlySetsThatNobodyNeedsAreRemoved(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	named, temporary, other := install(t, home, "amd64", "named"), install(t, home, "amd64", "temporary"), install(t, home, "arm64", "other")
	pin(t, home.Persistent("dev"), named.Version)
	pin(t, home.Session("abc"), temporary.Version)
	var all []*Set
	for _, content := range []string{"1", "2", "3", "4"} {
		all = append(all, install(t, home, "amd64", content))
	}
	want := []string{named.Version, temporary.Version, other.Version, all[2].Version, all[3].Version}
	slices.Sort(want)
	if got := versions(t, home); !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	for _, s := range all[:2] {
		if _, err := os.Lstat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still on disk: %v", s.Version, err)
		}
	}
}

func TestNothingIsRemovedWhenAVMCannotBeUnderstood(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	pin(t, home.Persistent("dev"), "0123456789ab")
	write(t, home.Persistent("dev").Spec(), "{")
	for _, content := range []string{"1", "2", "3", "4"} {
		install(t, home, "amd64", content)
	}
	if got := versions(t, home); len(got) != 4 {
		t.Errorf("kept %v", got)
	}
}

func TestAPublishedFileCanBeReadByAllWhateverItsModeWas(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o400, 0o600, 0o644, 0o666, 0o755 | os.ModeSetuid} {
		path := filepath.Join(t.TempDir(), "f")
		write(t, path, "x")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := settle(path); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
			t.Errorf("mode %v became %v, %v", mode, info.Mode(), err)
		}
	}
}

func TestBuildingTheSameAgainKeepsTheFilesThatAreThere(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	s := install(t, home, "amd64", "1")
	before, err := os.Stat(filepath.Join(s.Dir(), Kernel))
	if err != nil {
		t.Fatal(err)
	}
	install(t, home, "amd64", "1")
	after, err := os.Stat(filepath.Join(s.Dir(), Kernel))
	if err != nil || identity(before) != identity(after) {
		t.Errorf("the file was replaced or touched: %v", err)
	}
	left(t, home)
}

// left checks that nothing half-made is there.
func left(t *testing.T, home paths.Home) {
	t.Helper()
	if found, err := filepath.Glob(filepath.Join(home.Assets(), stagingPrefix+"*")); err != nil || len(found) != 0 {
		t.Errorf("left: %v, %v", found, err)
	}
}

func TestWhatADeadBuildLeftIsRemovedByTheNext(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	install(t, home, "amd64", "1")
	for _, name := range []string{"dead", "dead-old"} {
		if err := os.MkdirAll(filepath.Join(home.Assets(), stagingPrefix+name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	install(t, home, "amd64", "2")
	left(t, home)
}

func TestASetWithoutAllItsFilesIsNotPublished(t *testing.T) {
	t.Parallel()
	for _, name := range []string{Kernel, Initrd, "rootfs.squashfs"} {
		home := newHome(t)
		s := install(t, home, "amd64", "1")
		for how, spoil := range map[string]func(string) error{"missing": os.Remove, "empty": func(p string) error { return os.Truncate(p, 0) }} {
			dir, e := staged(t, home, "2")
			if err := spoil(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			if _, err := Publish(home, dir, e); err == nil {
				t.Errorf("published although %s is %s", name, how)
			}
		}
		if got := versions(t, home); !slices.Equal(got, []string{s.Version}) {
			t.Errorf("sets are %v", got)
		}
	}
}

func TestASecondBuildWaitsAndCanBeGivenUp(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	lock, err := Lock(t.Context(), home, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	pid := 0
	if _, err := Lock(ctx, home, func(p int) { pid = p; cancel() }); !errors.Is(err, context.Canceled) || pid != os.Getpid() {
		t.Errorf("%v, held by %d", err, pid)
	}
	again, err := Lock(t.Context(), home, func(int) {
		if err := lock.Release(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(); err != nil {
		t.Error(err)
	}
}
