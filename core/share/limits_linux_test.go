package share_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/share"
)

func TestReadOnlyIsRefusedOnTheHost(t *testing.T) {
	r := newRig(t, func(c *share.Config) { c.ReadOnly = true })
	write(t, r.on("f"), "text")
	if read(t, r.in("f")) != "text" {
		t.Error("not readable")
	}
	_, err := os.OpenFile(r.in("f"), os.O_WRONLY, 0)
	want(t, err, unix.EROFS)
	_, err = os.OpenFile(r.in("f"), os.O_RDONLY|os.O_TRUNC, 0)
	want(t, err, unix.EROFS)
	want(t, os.WriteFile(r.in("g"), nil, 0o644), unix.EROFS)
	want(t, os.Mkdir(r.in("d"), 0o755), unix.EROFS)
	want(t, os.Remove(r.in("f")), unix.EROFS)
	want(t, os.Rename(r.in("f"), r.in("g")), unix.EROFS)
	want(t, os.Link(r.in("f"), r.in("g")), unix.EROFS)
	want(t, os.Symlink("f", r.in("g")), unix.EROFS)
	want(t, os.Chmod(r.in("f"), 0o777), unix.EROFS)
	want(t, os.Truncate(r.in("f"), 1), unix.EROFS)
	want(t, unix.Setxattr(r.in("f"), "user.a", nil, 0), unix.EROFS)
	want(t, unix.Mkfifo(r.in("p"), 0o644), unix.EROFS)
	if l, _ := filepath.Glob(r.on("*")); len(l) != 1 || read(t, r.on("f")) != "text" {
		t.Error("changed:", l)
	}
}

func TestQuotaIsEnforcedAndGivenBack(t *testing.T) {
	r := newRig(t, func(c *share.Config) { c.Quota.Bytes = 4 << 20 })
	want(t, os.WriteFile(r.in("big"), make([]byte, 6<<20), 0o644), unix.EDQUOT)
	if held, err := os.Stat(r.on("big")); err != nil || held.Size() > 4<<20 {
		t.Error("too much was written")
	}
	must(t, os.Remove(r.in("big")))
	for range 5 { // room is given back each time
		write(t, r.in("a"), strings.Repeat("x", 3<<20))
		must(t, os.Remove(r.in("a")))
	}
	write(t, r.in("a"), strings.Repeat("x", 3<<20))
	write(t, r.in("a"), strings.Repeat("y", 3<<20)) // over itself
	f, err := os.OpenFile(r.in("a"), os.O_RDWR, 0)
	must(t, err)
	want(t, unix.Fallocate(int(f.Fd()), 0, 0, 64<<20), unix.EDQUOT)
	must(t, f.Truncate(1<<40)) // a hole costs nothing
	must(t, f.Close())
	var st unix.Statfs_t
	must(t, unix.Statfs(r.guest, &st))
	if total := st.Blocks * uint64(st.Bsize); total != 4<<20 {
		t.Errorf("df says %d bytes", total)
	}
	must(t, os.Remove(r.in("a")))
	for i := range 10000 { // empty files are not free
		if err = unix.Mknod(r.in(strconv.Itoa(i)), unix.S_IFREG|0o644, 0); err != nil {
			break
		}
	}
	want(t, err, unix.EDQUOT)
}

func TestTooManyHandlesAndNodesAreRefused(t *testing.T) {
	r := newRig(t, func(c *share.Config) { c.Quota.Handles, c.Quota.Nodes = 10, 30 })
	var err error
	var open []*os.File
	for i := 0; err == nil && i < 20; i++ {
		var f *os.File
		if f, err = os.Create(r.in(strconv.Itoa(i))); err == nil {
			open = append(open, f)
		}
	}
	want(t, err, unix.EMFILE)
	for _, f := range open {
		must(t, f.Close())
	}
	err = nil
	for i := 0; err == nil && i < 50; i++ {
		err = unix.Mkdir(r.in(fmt.Sprint("d", i)), 0o755)
	}
	want(t, err, unix.ENFILE, unix.EMFILE)
	if n := r.current().Stats().Nodes; n > 30 {
		t.Errorf("%d nodes", n)
	}
}

func TestWithoutWatchesHostEditsAreSeenALittleLater(t *testing.T) {
	var said strings.Builder
	r := newRig(t, func(c *share.Config) {
		c.Quota.Watches = 1
		c.Log = slog.New(slog.NewTextHandler(&said, nil))
	})
	must(t, os.MkdirAll(r.in("a/b/c"), 0o755))
	write(t, r.in("a/b/c/f"), "one")
	if read(t, r.in("a/b/c/f")) != "one" {
		t.Fatal("not written")
	}
	write(t, r.on("a/b/c/f"), "two")
	soon(t, "the edit", func() bool { return read(t, r.in("a/b/c/f")) == "two" })
	must(t, os.Remove(r.on("a/b/c/f")))
	soon(t, "the removal", func() bool { _, err := os.Stat(r.in("a/b/c/f")); return os.IsNotExist(err) })
	r.stop(t)
	if n := strings.Count(said.String(), "can be watched"); n != 1 {
		t.Errorf("said %d times: %s", n, said.String())
	}
}

func TestChangesAreEvents(t *testing.T) {
	r := newRig(t, nil)
	must(t, os.Mkdir(r.in("d"), 0o755))
	write(t, r.in("d/f"), "text")
	must(t, os.Rename(r.in("d/f"), r.in("g")))
	must(t, os.Remove(r.in("g")))
	write(t, r.on("host"), "not the guest's doing")
	var got []string
	soon(t, "the events", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		got = nil
		for _, e := range r.events {
			got = append(got, fmt.Sprintf("%s %s %d", e.Action, e.Path, e.Size))
			if e.PID == 0 {
				t.Error("no process:", e)
			}
		}
		return len(got) >= 5
	})
	slices.Sort(got)
	wanted := []string{"created d 40", "created d/f 0", "deleted g 4", "modified d/f 4", "renamed g 4"}
	got[0] = "created d 40" // the size of a directory is the file system's
	if !slices.Equal(got, wanted) {
		t.Errorf("%q", got)
	}
}

func TestFullAndRemovedDirectoriesGiveTheRightErrors(t *testing.T) {
	needMount(t)
	host := t.TempDir()
	if err := unix.Mount("none", host, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("mounting a tmpfs:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(host, unix.MNT_DETACH) })
	r := startRig(t, host, nil)
	want(t, os.WriteFile(r.in("big"), make([]byte, 2<<20), 0o644), unix.ENOSPC)
	must(t, os.Remove(r.in("big")))
	soon(t, "nothing to be open for writing", func() bool { return unix.Mount("none", host, "", unix.MS_REMOUNT|unix.MS_RDONLY, "") == nil })
	want(t, os.WriteFile(r.in("f"), nil, 0o644), unix.EROFS)
	must(t, unix.Mount("none", host, "", unix.MS_REMOUNT, ""))
	must(t, os.Mkdir(r.in("d"), 0o755))
	f, err := os.Create(r.in("d/f"))
	must(t, err)
	must(t, os.RemoveAll(r.on("d")))
	_, err = f.WriteString("still open")
	must(t, err)
	must(t, f.Close())
	soon(t, "the removal", func() bool { _, err := os.Stat(r.in("d")); return os.IsNotExist(err) })
}

func TestMountPointsInsideAreNotShared(t *testing.T) {
	r := newRig(t, nil)
	must(t, os.Mkdir(r.on("m"), 0o755))
	if err := unix.Mount("none", r.on("m"), "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("mounting a tmpfs:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(r.on("m"), unix.MNT_DETACH) })
	write(t, r.on("m/secret"), "x")
	_, err := os.ReadFile(r.in("m/secret"))
	want(t, err, unix.EACCES)
	if l, err := os.ReadDir(r.in()); err != nil || len(l) != 1 {
		t.Error(l, err)
	}
}
