package share_test

import (
	"os"
	"strings"
	"testing"
)

func TestFilesAreSharedBothWays(t *testing.T) {
	r := newRig(t, nil)
	write(t, r.in("a"), "from the guest")
	if got := read(t, r.on("a")); got != "from the guest" {
		t.Errorf("host reads %q", got)
	}
	write(t, r.on("b"), "from the host")
	if got := read(t, r.in("b")); got != "from the host" {
		t.Errorf("guest reads %q", got)
	}
	big := strings.Repeat("0123456789abcdef", 512<<10)
	write(t, r.in("big"), big)
	if read(t, r.on("big")) != big || read(t, r.in("big")) != big {
		t.Error("8 MiB differ")
	}
	must(t, os.MkdirAll(r.in("d/e/f"), 0o755))
	must(t, os.Rename(r.in("d/e"), r.in("g")))
	if _, err := os.Stat(r.on("g/f")); err != nil {
		t.Error(err)
	}
	must(t, os.RemoveAll(r.in("g")))
	names, err := os.ReadDir(r.in())
	must(t, err)
	if len(names) != 4 {
		t.Errorf("%d names, want a b big d", len(names))
	}
}

func TestHostEditsAreSeenInTheGuestAndBack(t *testing.T) {
	r := newRig(t, nil)
	write(t, r.in("f"), "one")
	if read(t, r.in("f")) != "one" {
		t.Fatal("not written")
	}
	write(t, r.on("f"), "longer text")
	soon(t, "an edit in place", func() bool { return read(t, r.in("f")) == "longer text" })
	write(t, r.on("f"), "LONGER TEXT")
	soon(t, "an edit of the same length", func() bool { return read(t, r.in("f")) == "LONGER TEXT" })
	write(t, r.on("new"), "replaced")
	must(t, os.Rename(r.on("new"), r.on("f")))
	soon(t, "a replacement", func() bool { return read(t, r.in("f")) == "replaced" })
	must(t, os.Chmod(r.on("f"), 0o755))
	soon(t, "a mode", func() bool { st, err := os.Stat(r.in("f")); return err == nil && st.Mode().Perm() == 0o755 })
	must(t, os.Remove(r.on("f")))
	soon(t, "a removal", func() bool { _, err := os.Stat(r.in("f")); return os.IsNotExist(err) })
	write(t, r.on("f"), "again")
	soon(t, "a file that did not exist", func() bool { b, err := os.ReadFile(r.in("f")); return err == nil && string(b) == "again" })
	for _, path := range []string{r.in("missing"), r.in("missing")} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	must(t, os.Symlink("f", r.on("missing")))
	soon(t, "a name that the guest believed not to exist", func() bool { _, err := os.Stat(r.in("missing")); return err == nil })
	must(t, os.Remove(r.on("missing")))
	soon(t, "its removal", func() bool { _, err := os.Stat(r.in("missing")); return os.IsNotExist(err) })
	must(t, os.Mkdir(r.on("dir"), 0o755))
	soon(t, "a directory in a listing", func() bool { l, err := os.ReadDir(r.in()); return err == nil && len(l) == 2 })
	write(t, r.on("dir/x"), "x")
	soon(t, "a file in it", func() bool { b, err := os.ReadFile(r.in("dir/x")); return err == nil && string(b) == "x" })
	must(t, os.Rename(r.on("dir"), r.on("moved")))
	soon(t, "a moved directory", func() bool {
		_, err := os.Stat(r.in("dir"))
		b, err2 := os.ReadFile(r.in("moved/x"))
		return os.IsNotExist(err) && err2 == nil && string(b) == "x"
	})
}
