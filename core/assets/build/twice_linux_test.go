//go:build vm

package build_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"capsem/core/assets"
	"capsem/core/assets/build"
	"capsem/core/fault"
	"capsem/core/paths"
)

func run(t *testing.T, ctx context.Context, home paths.Home, o build.Options) (*build.Result, error) { //nolint:revive // t comes first in helpers
	t.Helper()
	o.Home, o.Arch, o.Profile = home, runtime.GOARCH, "minimal"
	return build.Run(ctx, o)
}

func TestTheSameLockGivesTheSameBytes(t *testing.T) {
	one, two := paths.Home(t.TempDir()), paths.Home(t.TempDir())
	a, err := run(t, t.Context(), one, build.Options{UpdateLock: true})
	if err != nil {
		t.Fatal(fault.Line(err))
	}
	text, err := os.ReadFile(a.Lock)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(two.Assets(), "locks", filepath.Base(a.Lock))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := run(t, t.Context(), two, build.Options{Locked: true})
	if err != nil {
		t.Fatal(fault.Line(err))
	}
	if a.Set.Version != b.Set.Version || len(b.Moved) != 0 {
		t.Errorf("version %s, then %s; moved %q", a.Set.Version, b.Set.Version, b.Moved)
	}
	for i, f := range a.Set.Files {
		if b.Set.Files[i] != f {
			t.Errorf("%+v became %+v", f, b.Set.Files[i])
		}
	}
}

func TestABuildThatIsGivenUpLeavesNothing(t *testing.T) {
	tmp := t.TempDir()
	if err := os.Chmod(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	home := paths.Home(t.TempDir())
	gone := errors.New("given up")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	_, err := run(t, ctx, home, build.Options{Progress: func(s build.Step) {
		if strings.HasPrefix(s.Detail, "installing") || strings.HasPrefix(s.Detail, "extracting") {
			cancel(gone)
		}
	}})
	if !errors.Is(err, gone) {
		t.Fatalf("the build ended with %v", err)
	}
	if _, err := assets.Current(home, runtime.GOARCH); err == nil {
		t.Error("there is an image")
	}
	for _, dir := range []string{tmp, home.Assets()} {
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			if strings.HasPrefix(e.Name(), "capsem-build-") || strings.HasPrefix(e.Name(), "mmdebstrap") || strings.HasPrefix(e.Name(), ".build-") || strings.HasPrefix(e.Name(), "v") {
				t.Errorf("%s was left in %s", e.Name(), dir)
			}
		}
	}
}

func TestALockThatNoMirrorCanMeetIsRefused(t *testing.T) {
	home := paths.Home(t.TempDir())
	path := filepath.Join(home.Assets(), "locks", "minimal-"+runtime.GOARCH+".json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	lock := `{"packages":[{"name":"bash","version":"1.0-1","arch":"` + runtime.GOARCH + `","sha256":"00"}],"kernel":{"name":"linux-image","version":"1.0","arch":"amd64","sha256":"00"}}`
	if err := os.WriteFile(path, []byte(lock), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := run(t, t.Context(), home, build.Options{Locked: true})
	if err == nil || !strings.Contains(fault.Line(err), "can no longer be met") {
		t.Fatalf("got %v", err)
	}
	if _, err := assets.Current(home, runtime.GOARCH); err == nil {
		t.Error("an image was made all the same")
	}
}
