package assets

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsem/core/fault"
)

// damages are ways in which a file can be wrong.
var damages = map[string]func(path string) error{
	"missing": os.Remove,
	"cut":     func(path string) error { return os.Truncate(path, 3) },
	"longer": func(path string) error {
		text, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(path, append(text, 0), 0o600))
	},
	"a symlink": func(path string) error {
		return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path))
	},
	"another file": func(path string) error {
		text, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(path+".new", make([]byte, len(text)), 0o600), os.Rename(path+".new", path))
	},
	"empty":       func(path string) error { return os.Truncate(path, 0) },
	"altered":     flip,
	"a directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	"a pipe":      func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
}

func TestAWrongFileIsNamedAndABuildMendsIt(t *testing.T) {
	t.Parallel()
	for name, damage := range damages {
		for _, file := range []string{Kernel, Initrd, "rootfs.squashfs"} {
			t.Run(name+" "+file, func(t *testing.T) {
				t.Parallel()
				home := newHome(t)
				set := install(t, home, "amd64", "the root")
				path := filepath.Join(set.Dir(), file)
				if err := damage(path); err != nil {
					t.Fatal(err)
				}
				o, err := set.Open(t.Context())
				if err == nil {
					t.Fatal("opened", o)
				}
				_, message, hint := fault.Public(err)
				if !fault.Is(err, fault.Unavailable) || !strings.Contains(message, path) || !strings.Contains(hint, "capsem assets build") {
					t.Errorf("not helpful: %q, hint %q", message, hint)
				}
				if err := set.Verify(t.Context()); err == nil {
					t.Error("verified")
				}
				// Health does not read the content.
				if h := Health(home, "amd64"); name != "altered" && name != "another file" && (h.Ready || !slices.Equal(h.Missing, []string{"v" + set.Version + "/" + file})) {
					t.Errorf("health: %+v", h)
				}
				if again := install(t, home, "amd64", "the root"); again.Version != set.Version || again.Verify(t.Context()) != nil {
					t.Error("building anew did not help")
				}
			})
		}
	}
}

func TestAFileAlteredAfterItsVerdictIsNotBooted(t *testing.T) {
	t.Parallel()
	for name, pause := range map[string]bool{"at once": false, "after its verdict was remembered": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := install(t, newHome(t), "amd64", strings.Repeat("root", 1000))
			if pause {
				rest(t, set)
			}
			o, err := set.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = o.Close()
			if remembered := len(readVerdicts(set.home).known); pause != (remembered == 3) {
				t.Fatalf("%d verdicts are remembered", remembered)
			}
			path := filepath.Join(set.Dir(), "rootfs.squashfs")
			if err := flip(path); err != nil {
				t.Fatal(err)
			}
			if _, err := set.Open(t.Context()); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("opened: %v", err)
			}
		})
	}
}

func TestVerifyDoesNotBelieveWhatIsRemembered(t *testing.T) {
	t.Parallel()
	set := install(t, newHome(t), "amd64", "the root")
	path := filepath.Join(set.Dir(), Kernel)
	if err := flip(path); err != nil {
		t.Fatal(err)
	}
	rest(t, set)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	lie := &verdicts{home: set.home}
	lie.add(info, set.Files[2].BLAKE3)
	lie.save()
	o, err := set.Open(t.Context())
	if err != nil {
		t.Fatal("what is remembered is not used:", err)
	}
	_ = o.Close()
	if err := set.Verify(t.Context()); err == nil {
		t.Error("verified an altered kernel")
	}
}

func TestVerdictsAreForTheirOwnerAndRubbishIsIgnored(t *testing.T) {
	t.Parallel()
	set := install(t, newHome(t), "amd64", "the root")
	rest(t, set)
	for _, rubbish := range []string{"", "[", `{"a":1}`, "null", strings.Repeat("x", maxManifest+1)} {
		write(t, verdictFile(set.home), rubbish)
		o, err := set.Open(t.Context())
		if err != nil {
			t.Fatalf("with verdicts %.10q: %v", rubbish, err)
		}
		_ = o.Close()
	}
	if info, err := os.Stat(verdictFile(set.home)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestCheckingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	set := install(t, newHome(t), "amd64", "the root")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := set.Open(ctx); !errors.Is(err, context.Canceled) || fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
}

// meddler is a context of a check, asked before each read: somebody else then does something to the file.
type meddler struct {
	context.Context
	asked  int
	meddle func(asked int) error
}

func (m *meddler) Err() error {
	m.asked++
	return m.meddle(m.asked)
}

func TestAFileThatIsTouchedWhileItIsCheckedIsReadOnceMore(t *testing.T) {
	t.Parallel()
	touch := func(path string, n int) error { return os.Chtimes(path, time.Time{}, time.Unix(int64(n), 0)) }
	for name, c := range map[string]struct {
		meddle func(path string, asked int) error
		refuse string
	}{
		"touched once": {func(path string, asked int) error {
			if asked > 1 {
				return nil
			}
			return touch(path, asked)
		}, ""},
		"touched again and again": {touch, "changed while it was checked"},
		"altered": {func(path string, asked int) error {
			if asked != 2 { // its content is read, the end is not
				return nil
			}
			return errors.Join(flip(path), touch(path, 1))
		}, "content has changed"},
		"cut": {func(path string, asked int) error {
			if asked != 2 {
				return nil
			}
			return os.Truncate(path, 3)
		}, "3 bytes instead of"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := install(t, newHome(t), "amd64", "the root")
			path := filepath.Join(set.Dir(), Kernel)
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			kernel := set.Files[slices.IndexFunc(set.Files, func(f File) bool { return f.Name == Kernel })]
			ctx := &meddler{Context: t.Context(), meddle: func(asked int) error { return c.meddle(path, asked) }}
			err = check(ctx, f, kernel, &verdicts{home: set.home})
			if (err != nil) != (c.refuse != "") || (err != nil && !strings.Contains(err.Error(), c.refuse)) {
				t.Fatalf("checked with %v", err)
			}
			if c.refuse != "" {
				return
			}
			if got, err := io.ReadAll(f); err != nil || string(got) != "vmlinuzthe root" {
				t.Errorf("it then holds %q, %v", got, err)
			}
		})
	}
}

// rest waits until the set's files have been left alone for so long that verdicts on them are remembered.
func rest(t *testing.T, s *Set) {
	t.Helper()
	for _, f := range s.Files {
		info, err := os.Stat(filepath.Join(s.Dir(), f.Name))
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Until(lastChange(info).Add(settled + time.Millisecond)))
	}
}

func TestAnOpenedSetHasItsFilesAtTheirBeginning(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	install(t, home, "amd64", " one")
	set, err := Current(home, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time by what was remembered
		o, err := set.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for f, want := range map[*os.File]string{o.Kernel: "vmlinuz one", o.RootFS: "rootfs.squashfs one"} {
			if got, err := io.ReadAll(f); err != nil || string(got) != want {
				t.Errorf("%s holds %q, %v; want %q", f.Name(), got, err, want)
			}
		}
		if _, err := o.RootFS.WriteString("x"); err == nil {
			t.Error("the root file system can be written")
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		rest(t, set)
	}
	if h := Health(home, "amd64"); !h.Ready || h.Version != set.Version {
		t.Errorf("health: %+v", h)
	}
}

func TestWithoutASetTheUserIsToldHowToMakeOne(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	if h := Health(home, "amd64"); h.Ready || len(h.Missing) != 1 {
		t.Errorf("health: %+v", h)
	}
	for range 2 {
		_, err := Current(home, "amd64")
		if !fault.Is(err, fault.NotFound) || !strings.Contains(fault.Line(err), "capsem assets build") {
			t.Errorf("got %v", err)
		}
		install(t, home, "arm64", "") // of no use for amd64
	}
	set, err := Current(home, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(home, "arm64", set.Version); err != nil {
		t.Error(err)
	}
	for arch, version := range map[string]string{"amd64": set.Version, "arm64": "0123456789ab"} {
		if _, err := Load(home, arch, version); !fault.Is(err, fault.NotFound) {
			t.Errorf("load %s for %s: %v", version, arch, err)
		}
	}
}
