package assets

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	embedded "capsem/assets"
	"capsem/core/assets/initrd"
	"capsem/core/fault"
)

func TestRefreshReplacesOnlyTheAgent(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	old := install(t, home, "amd64", "1")
	changed, err := Refresh(t.Context(), home, "amd64", slog.New(slog.DiscardHandler))
	if err != nil || !changed {
		t.Fatalf("%v, %s", changed, fault.Line(err))
	}
	fresh, err := Current(home, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	agent, err := embedded.GuestAgent("amd64")
	if err != nil || fresh.Agent != Hash(agent) || fresh.Version == old.Version || fresh.Recipe != old.Recipe || fresh.Lock != old.Lock {
		t.Errorf("%+v from %+v, %v", fresh, old, err)
	}
	for i, f := range fresh.Files {
		if same := f == old.Files[i]; same != (f.Name != Initrd) {
			t.Errorf("%s: same content is %v", f.Name, same)
		}
	}
	if !linked(t, old, fresh, "rootfs.squashfs") || !linked(t, old, fresh, Kernel) {
		t.Error("large files were copied")
	}
	if err := errors.Join(old.Verify(t.Context()), fresh.Verify(t.Context())); err != nil {
		t.Error(err)
	}
	o, err := fresh.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if modules, err := initrd.Read(o.Initrd); err != nil || !reflect.DeepEqual(modules, oldModules) {
		t.Errorf("modules are %v, %v", modules, err)
	}
	left(t, home)
}

func linked(t *testing.T, a, b *Set, name string) bool {
	t.Helper()
	first, err := os.Stat(filepath.Join(a.Dir(), name))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.Stat(filepath.Join(b.Dir(), name))
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(first, second)
}

func TestRefreshDoesNothingWhenTheAgentIsTheSame(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	install(t, home, "amd64", "1")
	for i, want := range []bool{true, false, false} {
		if changed, err := Refresh(t.Context(), home, "amd64", slog.New(slog.DiscardHandler)); err != nil || changed != want {
			t.Errorf("time %d: %v, %v", i, changed, err)
		}
	}
}

func TestRefreshNeverMakesAnAlteredSetGood(t *testing.T) {
	t.Parallel()
	for _, name := range []string{Kernel, Initrd, "rootfs.squashfs"} {
		home := newHome(t)
		set := install(t, home, "amd64", "1")
		if err := flip(filepath.Join(set.Dir(), name)); err != nil {
			t.Fatal(err)
		}
		changed, err := Refresh(t.Context(), home, "amd64", slog.New(slog.DiscardHandler))
		if changed || err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
		if s, err := Current(home, "amd64"); err != nil || s.Version != set.Version {
			t.Errorf("%s: current is %+v, %v", name, s, err)
		}
		left(t, home)
	}
}

func TestASetInUseOutlivesRefreshes(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	set := install(t, home, "amd64", "1")
	pin(t, home.Persistent("dev"), set.Version)
	for _, content := range []string{"2", "3"} {
		install(t, home, "amd64", content)
		if _, err := Refresh(t.Context(), home, "amd64", slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	if got := versions(t, home); len(got) != 3 || !slices.Contains(got, set.Version) {
		t.Errorf("sets are %v", got)
	}
}

func TestRefreshWithoutAnImageSaysSo(t *testing.T) {
	t.Parallel()
	if _, err := Refresh(t.Context(), newHome(t), "amd64", slog.New(slog.DiscardHandler)); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
}
