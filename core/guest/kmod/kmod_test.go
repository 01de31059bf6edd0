//go:build linux

package kmod

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestModulesAreLoadedInOrder(t *testing.T) {
	t.Parallel()
	var got []string
	err := loadEach("/m", "# first\nb.ko\n\n  a.ko.xz  numdummies=0 x=1\nno-newline.ko", func(path, params string) error {
		got = append(got, strings.TrimSpace(path+" "+params))
		return nil
	})
	want := []string{"/m/b.ko", "/m/a.ko.xz numdummies=0 x=1", "/m/no-newline.ko"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("loaded %q, %v; want %q", got, err, want)
	}
}

func TestALineNeverLeadsOutOfTheDirectory(t *testing.T) {
	t.Parallel()
	err := loadEach("/m", "../../etc/x.ko\n/abs.ko\na/../../../b.ko\n", func(path, _ string) error {
		if !strings.HasPrefix(path, "/m/") {
			t.Errorf("would load %s", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLoadingGoesOnAfterAnError(t *testing.T) {
	t.Parallel()
	n := 0
	err := loadEach("/m", "loaded.ko\nabsent.ko\nbroken.ko\nlast.ko\n", func(path, _ string) error {
		n++
		return map[string]error{"/m/loaded.ko": unix.EEXIST, "/m/absent.ko": unix.ENODEV, "/m/broken.ko": unix.ENOEXEC}[path]
	})
	if n != 4 || !errors.Is(err, unix.ENOEXEC) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "broken.ko") {
		t.Errorf("%d loaded, %v", n, err)
	}
}

func TestAKernelWithoutModulesNeedsNone(t *testing.T) {
	t.Parallel()
	if err := LoadAll(t.TempDir(), func(string) bool { return false }); err != nil {
		t.Error(err)
	}
}

func FuzzLoadEach(f *testing.F) {
	f.Add("a.ko\n# b\n../c.ko x=1\n")
	f.Fuzz(func(t *testing.T, order string) {
		err := loadEach("/m", order, func(path, _ string) error {
			if !strings.HasPrefix(path, "/m") || strings.Contains(path, "/../") {
				t.Errorf("would load %q", path)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
