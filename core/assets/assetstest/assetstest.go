// Package assetstest gives tests a CAPSEM_HOME with a guest image. An image is built once per content and kept in a cache
// outside the tree; each test gets a copy of its own.
package assetstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"capsem/core/assets"
	"capsem/core/assets/build"
	"capsem/core/fault"
	"capsem/core/paths"
)

// Minimal is the recipe that tests boot, Dev what users get: for tests of what only that has.
const Minimal, Dev = "minimal", "dev"

// Cache is the installation in which an image for tests is kept: below CAPSEM_TEST_CACHE, else the user's cache directory.
func Cache(profile string) (paths.Home, error) {
	root := os.Getenv("CAPSEM_TEST_CACHE")
	if root == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find cache directory: %w", err)
		}
		root = filepath.Join(dir, "capsem-test")
	}
	// A lock of an installation does not count here: the image for tests is that of the repository.
	id, err := build.Identity(paths.Home(filepath.Join(root, "none")), profile, runtime.GOARCH)
	if err != nil {
		return "", err //nolint:wrapcheck // says what it did
	}
	return paths.Home(filepath.Join(root, id)), nil
}

// Prepare makes sure that the image of a profile is in the cache, with the guest agent of this binary. Several processes may do
// so at once: one builds, the others wait.
func Prepare(ctx context.Context, profile string, progress func(build.Step)) (set *assets.Set, err error) {
	err = withImage(ctx, profile, progress, func(s *assets.Set) error { set = s; return nil })
	return set, err
}

// withImage calls use with the image in the cache, which no other process changes meanwhile.
func withImage(ctx context.Context, profile string, progress func(build.Step), use func(*assets.Set) error) (err error) {
	home, err := Cache(profile)
	if err != nil {
		return err
	}
	// Not the installation's own lock, which the builder takes.
	lock, err := assets.Lock(ctx, paths.Home(home.Dir()+"-use"), nil)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	set, err := prepare(ctx, home, profile, progress)
	if err != nil {
		return err
	}
	return use(set)
}

func prepare(ctx context.Context, home paths.Home, profile string, progress func(build.Step)) (*assets.Set, error) {
	if !whole(ctx, home) {
		if _, err := build.Run(ctx, build.Options{Home: home, Arch: runtime.GOARCH, Profile: profile, Progress: progress}); err != nil {
			return nil, err //nolint:wrapcheck // a fault, or says what it did
		}
	}
	if _, err := assets.Refresh(ctx, home, runtime.GOARCH, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err //nolint:wrapcheck // a fault, or says what it did
	}
	return assets.Current(home, runtime.GOARCH) //nolint:wrapcheck // a fault
}

// whole reports whether the cache has an image that can be booted.
func whole(ctx context.Context, home paths.Home) bool {
	set, err := assets.Current(home, runtime.GOARCH)
	if err != nil {
		return false
	}
	o, err := set.Open(ctx)
	return err == nil && o.Close() == nil
}

// Home returns a new CAPSEM_HOME with a short path and the minimal image in it, removed when the test ends.
func Home(t testing.TB) paths.Home {
	t.Helper()
	return HomeOf(t, Minimal)
}

// HomeOf is a Home with the image of another profile.
func HomeOf(t testing.TB, profile string) paths.Home {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ct") //nolint:usetesting // sockets are made there: the path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	home := paths.Home(dir)
	if err := Fill(t.Context(), home, profile); err != nil {
		t.Fatalf("no guest image for this test: %s", fault.Line(err))
	}
	return home
}

// Fill puts the image of a profile into an installation.
func Fill(ctx context.Context, home paths.Home, profile string) error {
	return withImage(ctx, profile, nil, func(set *assets.Set) error { return fill(ctx, home, set) })
}

func fill(ctx context.Context, home paths.Home, set *assets.Set) (err error) {
	lock, err := assets.Lock(ctx, home, nil)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	staging, err := assets.Staging(home)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	for _, f := range set.Files {
		if err := place(filepath.Join(set.Dir(), f.Name), filepath.Join(staging, f.Name)); err != nil {
			return err
		}
	}
	e := set.Entry
	e.Files = nil
	copied, err := assets.Publish(home, staging, e)
	if err == nil && copied.Version != set.Version {
		err = fmt.Errorf("copy image: it is %s instead of %s", copied.Version, set.Version)
	}
	return err //nolint:wrapcheck // says what it did
}

// place copies a file. It is no hard link: a test may alter its image.
func place(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy image: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("copy image: %w", err)
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(fmt.Errorf("copy image: %w", err), out.Close())
	}
	return out.Close() //nolint:wrapcheck // nothing to add
}
