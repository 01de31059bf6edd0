package build

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"capsem/core/fault"
	"capsem/core/paths"
)

func someLock() *Lock {
	return &Lock{
		Packages: []Pinned{{"bash", "5.2-1", "amd64", "aa"}, {"git", "2.47", "amd64", "bb"}},
		Kernel:   Pinned{"linux-image-6.12-cloud-amd64", "6.12.1-1", "amd64", "cc"},
	}
}

func TestALockSurvivesBeingSaved(t *testing.T) {
	home := paths.Home(t.TempDir())
	l := someLock()
	if _, err := l.save(home, "minimal", "amd64"); err != nil {
		t.Fatal(err)
	}
	again, err := loadLock(home, "minimal", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	a, errA := l.encode()
	b, errB := again.encode()
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("%s\nbecame\n%s", a, b)
	}
}

func TestADamagedLockIsNamedAndNotTakenForNone(t *testing.T) {
	for name, text := range map[string]string{
		"cut": `{"packages": [`, "shell": `{"packages": [{"name":"a b","version":"1"}]}`,
		"second pin": `{"packages": [{"name":"bash","version":"1\n\nPackage: *"}]}`, "empty": "",
	} {
		t.Run(name, func(t *testing.T) {
			home := paths.Home(t.TempDir())
			path := lockPath(home, "minimal", "amd64")
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if l, err := loadLock(home, "minimal", "amd64"); err == nil || !strings.Contains(fault.Line(err), "damaged") {
				t.Errorf("got %v, %v", l, err)
			}
		})
	}
}

func TestDifferencesNameEachPackageThatMoved(t *testing.T) {
	now := someLock()
	now.Packages[0].Version = "5.2-2"
	now.Packages[1] = Pinned{"jq", "1.7", "amd64", "dd"}
	now.Kernel.SHA256 = "ee"
	want := []string{
		"bash is 5.2-2, locked 5.2-1", "git is not installed any more", "jq 1.7 is new",
		"linux-image-6.12-cloud-amd64 6.12.1-1 has another content than was locked",
	}
	if got := someLock().differences(now); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := someLock().differences(someLock()); len(got) != 0 {
		t.Errorf("a lock differs from itself: %q", got)
	}
}

func TestALockThatCannotBeMetIsSaidOrRefused(t *testing.T) {
	now := someLock()
	now.Packages[0].Version = "5.2-2"
	var warned []string
	j := &job{lock: someLock(), Options: Options{Progress: func(s Step) {
		if s.Warning {
			warned = append(warned, s.Name)
		}
	}}}
	moved, err := j.compare(now)
	if err != nil || len(moved) != 1 || len(warned) != 1 || !strings.Contains(warned[0], "bash is 5.2-2") {
		t.Errorf("moved %q, warned %q, %v", moved, warned, err)
	}
	j.Locked = true
	if _, err = j.compare(now); err == nil || !strings.Contains(fault.Line(err), "bash is 5.2-2, locked 5.2-1") {
		t.Errorf("--locked took it: %v", err)
	}
}

func FuzzLock(f *testing.F) {
	if text, err := someLock().encode(); err == nil {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := parseLock(text)
		if err != nil {
			return
		}
		if n := strings.Count(l.preferences(), "\n"); n != 4*(len(l.Packages)+1) {
			t.Errorf("a pin broke out of its stanza: %q", l.preferences())
		}
	})
}
