package assets

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"capsem/core/fault"
)

func TestADamagedManifestIsSaid(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	s := install(t, home, "amd64", "1")
	good := read(t, home.Manifest())
	swap := func(old, fresh string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in %s", old, good)
		}
		return strings.Replace(good, old, fresh, 1)
	}
	for name, bad := range map[string]string{
		"cut":                  good[:len(good)/2],
		"empty":                "",
		"null":                 "null",
		"two of them":          good + good,
		"other format":         swap(`"format": 1`, `"format": 2`),
		"path in a name":       swap(`"vmlinuz"`, `"../../etc/passwd"`),
		"other name":           swap(`"vmlinuz"`, `"vmlinux"`),
		"odd version":          strings.ReplaceAll(good, s.Version, "../../../x"),
		"other version":        strings.ReplaceAll(good, s.Version, "0123456789ab"),
		"current is not there": swap(`"amd64": "`+s.Version, `"amd64": "0123456789ab`),
		"current of another":   swap(`"amd64": "`+s.Version, `"arm64": "`+s.Version),
		"other hash":           swap(s.Files[1].BLAKE3, Hash([]byte("x"))),
		"short hash":           swap(s.Files[1].BLAKE3, s.Files[1].BLAKE3[:10]),
		"negative size":        swap(`"size": `, `"size": -`),
		"huge size":            swap(`"size": `, `"size": 99999999999999`),
		"terminal codes":       swap(`"minimal"`, `"\u001b[2Jminimal"`),
		"odd time":             swap(s.Built, "yesterday"),
		"no agent":             swap(s.Agent, ""),
		"too long":             good + strings.Repeat(" ", maxManifest),
	} {
		write(t, home.Manifest(), bad)
		if _, err := Current(home, "amd64"); !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Line(err), home.Manifest()+" is damaged") {
			t.Errorf("%s: %v", name, err)
		}
		if h := Health(home, "amd64"); h.Ready {
			t.Errorf("%s: it is said to be ready", name)
		}
	}
}

func TestADamagedManifestIsMovedAsideAndWhatItListedIsKept(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"damaged": func(path string) error { return os.Truncate(path, 100) }, "lost": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			home := newHome(t)
			old := install(t, home, "amd64", "old")
			pin(t, home.Persistent("dev"), old.Version)
			if err := damage(home.Manifest()); err != nil {
				t.Fatal(err)
			}
			fresh := install(t, home, "amd64", "fresh")
			if s, err := Current(home, "amd64"); err != nil || s.Version != fresh.Version {
				t.Errorf("current is %+v, %v", s, err)
			}
			s, err := Load(home, "amd64", old.Version)
			if err != nil || s.Verify(t.Context()) != nil {
				t.Errorf("the set of a stopped VM is lost: %v", err)
			}
			aside, err := filepath.Glob(home.Manifest() + ".damaged-*")
			if err != nil || (len(aside) == 1) != (name == "damaged") {
				t.Errorf("moved aside: %v, %v", aside, err)
			}
		})
	}
}

func TestALabelThatLiesIsNotBelieved(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	s := install(t, home, "amd64", "1")
	pin(t, home.Persistent("dev"), s.Version)
	path := filepath.Join(s.Dir(), label)
	write(t, path, strings.Replace(read(t, path), s.Files[0].BLAKE3, Hash(nil), 1))
	if err := os.Remove(home.Manifest()); err != nil {
		t.Fatal(err)
	}
	install(t, home, "amd64", "2")
	if _, err := Load(home, "amd64", s.Version); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestAManifestThatCannotBeReadIsLeftAlone(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	install(t, home, "amd64", "1")
	if err := os.Remove(home.Manifest()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(home.Manifest(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Current(home, "amd64"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	dir, e := staged(t, home, "2")
	if _, err := Publish(home, dir, e); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	if info, err := os.Lstat(home.Manifest()); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("it was replaced: %v, %v", info, err)
	}
}

func FuzzManifest(f *testing.F) {
	home := newHome(f)
	install(f, home, "amd64", "1")
	f.Add([]byte(read(f, home.Manifest())))
	f.Add([]byte(`{"format":1,"current":{},"sets":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text)
		if err != nil {
			return
		}
		for version, e := range m.Sets {
			if strings.ContainsAny(version, "/.") || len(e.Files) != 3 {
				t.Errorf("set %q: %+v", version, e)
			}
			for _, file := range e.Files {
				if file.Name != filepath.Base(file.Name) || file.Size <= 0 || file.Size > maxFileSize {
					t.Errorf("file %+v", file)
				}
			}
		}
		for arch, version := range m.Current {
			if m.Sets[version].Arch != arch {
				t.Errorf("current for %q is %q", arch, version)
			}
		}
	})
}
