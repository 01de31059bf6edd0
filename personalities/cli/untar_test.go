package cli

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// archive packs headers; a regular one's Linkname is its content.
func archive(t testing.TB, heads ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range heads {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func dirHead(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
}

func fileHead(name, content string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content, Mode: mode}
}

func linkHead(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

func target(t testing.TB) (dir string, root *os.Root) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "target")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return dir, root
}

func TestATreeIsUnpackedWithItsModesAndLinks(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o027))
	dir, root := target(t)
	if err := os.WriteFile(filepath.Join(dir, "old"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := archive(t, dirHead(".", 0o777), dirHead("ro", 0o555), fileHead("ro/f", "content", 0o777), fileHead("s", "x", 0o4755),
		linkHead("ro/up", "../s"), linkHead("here", "ro/f"), fileHead("old", "new", 0o644),
		tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "s"}, tar.Header{Typeflag: tar.TypeFifo, Name: "pipe"})
	warnings, err := unpackTree(b, root)
	if want := []string{`left out "pipe": it is a named pipe`}; !slices.Equal(warnings, want) || err != nil {
		t.Fatalf("%q, %v", warnings, err)
	}
	for name, want := range map[string]fs.FileMode{
		".": fs.ModeDir | 0o700, "ro": fs.ModeDir | 0o555, "ro/f": 0o750, "s": 0o750, "hard": 0o750, "old": 0o640, "here": fs.ModeSymlink | 0o777,
	} {
		if info, err := root.Lstat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info, err, want)
		}
	}
	for name, want := range map[string]string{"here": "content", "ro/up": "x", "old": "new", "hard": "x"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := root.Lstat("pipe"); err == nil {
		t.Error("a pipe came out")
	}
}

func TestLinksThatLeadOutAreLeftOutAndNamed(t *testing.T) {
	for link, ok := range map[string]bool{
		"f": true, "./f": true, "d/f": true, "../d": true, "..": true, "": false,
		"/etc/passwd": false, "../../x": false, "d/../../x": false, "d/..": false, "./../../x": false, "..//../x": false,
	} {
		if got := inside(link, "d/l"); got != ok {
			t.Errorf("%q: %v", link, got)
		}
	}
	_, root := target(t)
	warnings, err := unpackTree(archive(t, linkHead("a\x1b[2J", "/etc"), linkHead("b", "../b"), linkHead("c", ".."), linkHead("d", "/"), linkHead("e", "b")), root)
	warning := strings.Join(warnings, "\n")
	if err != nil || !strings.Contains(warning, "4 symbolic links") || !strings.Contains(warning, `"b", "c", ...`) || strings.Contains(warning, "\x1b") {
		t.Errorf("%q, %v", warning, err)
	}
	if got, err := root.Readlink("e"); got != "b" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAnArchiveCannotReachOutsideOrFillTheDisk(t *testing.T) {
	big := filepath.Join(t.TempDir(), "big")
	if err := errors.Join(os.WriteFile(big, nil, 0o600), os.Truncate(big, 1<<36)); err != nil {
		t.Fatal(err)
	}
	sparse := func(format string) *bytes.Buffer { // of which nothing is sent
		text, err := exec.CommandContext(t.Context(), "tar", "-cS", "--format="+format, "-C", filepath.Dir(big), "big").Output()
		if err != nil {
			t.Fatal(err)
		}
		return bytes.NewBuffer(text)
	}
	for name, c := range map[string]struct {
		text *bytes.Buffer
		want string
	}{
		"above":           {archive(t, fileHead("../x", "x", 0o644)), "outside"},
		"absolute":        {archive(t, fileHead("/x", "x", 0o644)), "outside"},
		"hard link above": {archive(t, tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "../y"}), "outside"},
		"through a link":  {archive(t, dirHead("d", 0o755), linkHead("l", "d"), linkHead("l/x", "../y")), "outside"},
		"hard link through a link": {archive(t, dirHead("d", 0o755), fileHead("d/f", "", 0o644), linkHead("l", "d"),
			tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "l/f"}), "outside"},
		"sparse":      {sparse("posix"), "more than was sent"},
		"sparse, old": {sparse("gnu"), "more than was sent"},
		"endless":     {bytes.NewBuffer(append(archive(t).Bytes(), make([]byte, 2*maxPadding)...)), "does not end"},
		"no archive":  {bytes.NewBufferString(strings.Repeat("x", 2000)), "read archive"},
		"cut in half": {bytes.NewBuffer(archive(t, fileHead("f", strings.Repeat("x", 5000), 0o644)).Bytes()[:2000]), "unexpected EOF"},
	} {
		dir, root := target(t)
		if _, err := unpackTree(c.text, root); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if beside, _ := os.ReadDir(filepath.Dir(dir)); len(beside) != 1 {
			t.Errorf("%s: beside the target %v", name, beside)
		}
	}
}

func FuzzUnpackTree(f *testing.F) {
	f.Add(archive(f, dirHead("d", 0o755), fileHead("d/f", "x", 0o644), linkHead("d/l", "../d/f")).Bytes())
	f.Add(archive(f, linkHead("l", "."), fileHead("l/f", "x", 0o644)).Bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		dir, root := target(t)
		_, _ = unpackTree(bytes.NewReader(text), root) // whatever it says
		if beside, _ := os.ReadDir(filepath.Dir(dir)); len(beside) != 1 {
			t.Fatalf("beside the target %v", beside)
		}
		_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.Type() == fs.ModeSymlink {
				if to, err := filepath.EvalSymlinks(name); err == nil && to != dir && !strings.HasPrefix(to, dir+"/") {
					t.Errorf("%s leads to %s", name, to)
				}
			}
			return nil
		})
	})
}
