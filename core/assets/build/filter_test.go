package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// entryOf is a file of a test's archive.
type entryOf struct {
	name, text string
	kind       byte
	mode       int64
	link       string
}

func archive(t testing.TB, entries ...entryOf) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		h := &tar.Header{
			Name: e.name, Typeflag: e.kind, Mode: e.mode, Size: int64(len(e.text)), Linkname: e.link, ModTime: time.Unix(epoch+1000, 5),
			Uname: "someone", PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "cap"}, Format: tar.FormatPAX,
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type got struct {
	header *tar.Header
	text   string
}

func filtered(t *testing.T, in []byte) (map[string]got, *filter) {
	t.Helper()
	r, err := LoadRecipe("minimal")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	f, err := newFilter(&out, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.run(bytes.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	files := map[string]got{}
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, f
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[h.Name]; twice {
			t.Errorf("%s is there twice", h.Name)
		}
		files[h.Name] = got{h, string(text)}
	}
}

func TestPrivilegesAndTimesAreTakenAway(t *testing.T) {
	files, _ := filtered(t, archive(t,
		entryOf{name: "./usr/bin/su", text: "x", mode: 0o4755}, entryOf{name: "./usr/bin/wall", text: "x", mode: 0o2755},
		entryOf{name: "./var/mail/", kind: tar.TypeDir, mode: 0o2775}, entryOf{name: "./tmp/", kind: tar.TypeDir, mode: 0o1777}))
	for name, mode := range map[string]int64{"usr/bin/su": 0o755, "usr/bin/wall": 0o755, "var/mail/": 0o775, "tmp/": 0o1777} {
		f, ok := files[name]
		if !ok {
			t.Errorf("%s is gone", name)
			continue
		}
		if f.header.Mode != mode || f.header.ModTime.Unix() != epoch || f.header.Uname != "" {
			t.Errorf("%s: mode %o at %s by %q", name, f.header.Mode, f.header.ModTime, f.header.Uname)
		}
		if _, ok := f.header.PAXRecords["SCHILY.xattr.security.capability"]; ok {
			t.Errorf("%s kept its capabilities", name)
		}
	}
}

func TestWhatBelongsToOneMachineOrABuildStaysOut(t *testing.T) {
	files, _ := filtered(t, archive(t,
		entryOf{name: "./etc/ssh/ssh_host_rsa_key", text: "secret"}, entryOf{name: "./etc/machine-id", text: "abc\n"},
		entryOf{name: "./etc/resolv.conf", text: "x"}, entryOf{name: "./etc/hostname", text: "builder"},
		entryOf{name: "./var/cache/", kind: tar.TypeDir, mode: 0o755}, entryOf{name: "./var/cache/apt/pkgcache.bin", text: "x"},
		entryOf{name: "./var/log/apt/term.log", text: "x"}, entryOf{name: "./dev/null", kind: tar.TypeChar},
		entryOf{name: "./etc/apt/sources.list", text: "deb somewhere"}, entryOf{name: "./etc/apt/sources.list.d/x.sources", text: "x"},
		entryOf{name: "./usr/share/man/man1/ls.1.gz", text: "x"}, entryOf{name: "./usr/share/doc/bash/copyright", text: "GPL"},
		entryOf{name: "./usr/share/doc/bash/NEWS.gz", text: "x"}, entryOf{name: "./root/.npm/_logs/x", text: "x"}))
	for _, name := range []string{
		"etc/ssh/ssh_host_rsa_key", "etc/resolv.conf", "etc/hostname", "var/cache/apt/pkgcache.bin", "var/log/apt/term.log", "dev/null",
		"etc/apt/sources.list.d/x.sources", "usr/share/man/man1/ls.1.gz", "usr/share/doc/bash/NEWS.gz", "root/.npm/_logs/x",
	} {
		if _, ok := files[name]; ok {
			t.Errorf("%s is in the image", name)
		}
	}
	if f, ok := files["etc/machine-id"]; !ok || f.text != "" {
		t.Errorf("machine-id is %q (there: %v)", f.text, ok)
	}
	if _, ok := files["var/cache/"]; !ok {
		t.Error("the directory of caches is gone")
	}
	if files["usr/share/doc/bash/copyright"].text != "GPL" {
		t.Error("a licence is gone")
	}
	if strings.Contains(files["etc/apt/sources.list"].text, "somewhere") {
		t.Error("the builder's mirror is in the image")
	}
}

func TestRecipeFilesReplaceThoseOfPackages(t *testing.T) {
	files, _ := filtered(t, archive(t, entryOf{name: "./etc/", kind: tar.TypeDir, mode: 0o755}, entryOf{name: "./etc/bash.bashrc", text: "debian"}))
	if f := files["etc/bash.bashrc"]; !strings.Contains(f.text, "capsem:") || f.header.Mode != 0o644 {
		t.Errorf("bash.bashrc is %q", f.text)
	}
	if f := files["etc/environment"]; !strings.Contains(f.text, "LANG=C.UTF-8\n") {
		t.Errorf("environment is %q", f.text)
	}
}

func TestInstalledPackagesGetTheHashesOfAptsLists(t *testing.T) {
	_, f := filtered(t, archive(t,
		entryOf{name: "./var/lib/apt/lists/x_Packages", text: "Package: git\nVersion: 2.47\nArchitecture: amd64\nSHA256: bb\n\nPackage: bash\nVersion: 5.2\nArchitecture: amd64\nSHA256: aa\n"},
		entryOf{name: "./var/lib/dpkg/status", text: "Package: git\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.47\n\nPackage: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n"}))
	got := f.packages()
	if len(got) != 2 || got[0] != (Pinned{"bash", "5.2", "amd64", "aa"}) || got[1] != (Pinned{"git", "2.47", "amd64", "bb"}) {
		t.Errorf("got %v", got)
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(archive(f, entryOf{name: "./usr/bin/su", text: "x", mode: 0o4755}, entryOf{name: "../../x", link: "/etc", kind: tar.TypeSymlink}))
	r, err := LoadRecipe("minimal")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		flt, err := newFilter(&out, r)
		if err != nil {
			t.Fatal(err)
		}
		if flt.run(bytes.NewReader(in)) != nil {
			return
		}
		for tr := tar.NewReader(&out); ; {
			h, err := tr.Next()
			if err != nil {
				return
			}
			if h.Mode&0o6000 != 0 || strings.HasPrefix(h.Name, "/") || strings.HasPrefix(h.Name, "../") {
				t.Errorf("%s came through with mode %o", h.Name, h.Mode)
			}
		}
	})
}
