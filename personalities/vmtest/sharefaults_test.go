//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestWhatGoesWrongWithASharedDirectoryIsAnErrorOfItsFiles takes away, fills and changes directories of the host that a guest uses.
func TestWhatGoesWrongWithASharedDirectoryIsAnErrorOfItsFiles(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"gone", "small", "plain", "many"} {
		if err := os.Mkdir(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mount("tmpfs", at("small"), "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(at("small"), syscall.MNT_DETACH) })
	const entries, files = 100_000, 4096
	for i := range entries {
		if err := os.WriteFile(filepath.Join(at("many"), fmt.Sprintf("f%06d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in.ok("create", "-n", "vm", "--ram", "512M", "--mount", at("gone"), "--mount", at("small"), "--mount", at("plain"), "--mount", at("many"))

	in.want(1, "", "No space left on device", "exec", "vm", "head -c 20M /dev/zero > /mnt/small/big")
	in.want(0, "ok\n", "", "exec", "vm", "rm /mnt/small/big; echo ok > /mnt/small/ok; cat /mnt/small/ok")
	remount(in, at("small"), syscall.MS_RDONLY)
	in.want(1, "", "Read-only file system", "exec", "vm", "echo x > /mnt/small/x")
	in.want(1, "ok\n", "Read-only file system", "exec", "vm", "cat /mnt/small/ok; rm /mnt/small/ok")
	remount(in, at("small"), 0)
	in.want(0, "", "", "exec", "vm", "rm /mnt/small/ok")

	// More than the disk may hold, told before anything is written.
	in.want(1, "", "Disk quota exceeded", "exec", "vm", "fallocate -l 60G /root/large")
	in.want(0, "0\n", "", "exec", "vm", "rm -f /root/large; ls /root | grep -c large || true")

	in.want(0, fmt.Sprintln(entries), "", "exec", "vm", "ls -fA /mnt/many | sort -u | wc -l")
	in.want(0, fmt.Sprintln(files), "", "exec", "vm", fmt.Sprintf(
		`python3 -c 'f = [open("/mnt/many/f%%06d" %% i) for i in range(%d)]; print(len(f))'`, files))

	replaced(t, in, dir)
	if err := os.RemoveAll(at("gone")); err != nil {
		t.Fatal(err)
	}
	in.until("an error", func() bool { return in.capsem("", "exec", "vm", "echo x > /mnt/gone/x").code == 1 })
	in.want(0, "", "", "exec", "vm", "echo fine > /root/fine; rm /root/fine")
	if err := syscall.Unmount(at("small"), syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if r := in.capsem("", "exec", "vm", "echo x > /mnt/small/x; cat /mnt/small/x"); r.code != 0 && !strings.Contains(r.stderr, "/mnt/small/x") {
		t.Errorf("after its file system was unmounted: %+v", r)
	}
	in.want(0, "fine\n", "", "exec", "vm", "echo fine > /root/fine; cat /root/fine")
	repository(in)
}

// replaced puts another file in the place of one that the guest has open.
func replaced(t *testing.T, in *install, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("plain/file"), []byte("one\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	in.ok("exec", "-d", "vm", "exec 5< /mnt/plain/file; touch /run/open; while ! test -e /run/go; do sleep 0.1; done; cat <&5 > /run/read; touch /run/done")
	in.until("an open file", func() bool { return in.capsem("", "exec", "vm", "test -e /run/open").code == 0 })
	if err := os.WriteFile(at("new"), []byte("two\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at("new"), at("plain/file")); err != nil {
		t.Fatal(err)
	}
	in.until("the file in its place", func() bool { return in.ok("exec", "vm", "cat /mnt/plain/file") == "two\n" })
	in.ok("exec", "vm", "touch /run/go")
	in.until("the reader's end", func() bool { return in.capsem("", "exec", "vm", "test -e /run/done").code == 0 })
	in.want(0, "one\n", "", "exec", "vm", "cat /run/read")
}

// remount makes a tmpfs read-only, or writable again, once no file that the guest has closed is open for writing any more.
func remount(in *install, path string, flags uintptr) {
	in.t.Helper()
	in.until("a mount with other flags", func() bool {
		return syscall.Mount("tmpfs", path, "tmpfs", syscall.MS_REMOUNT|flags, "size=8m") == nil
	})
}

// repository clones with git over file://, and works in the clone.
func repository(in *install) {
	in.t.Helper()
	const git = "git -c user.name=n -c user.email=e@e "
	in.ok("exec", "vm", "mkdir origin && cd origin && git init -q && for i in $(seq 50); do mkdir -p d$i; echo $i > d$i/f; done && git add -A && "+git+"commit -qm all")
	in.ok("exec", "vm", "git clone -q file:///root/origin clone && cd clone && git fsck --strict && test $(git ls-files | wc -l) = 50 && test -z \"$(git status --porcelain)\"")
	in.want(0, " M d7/f\n", "", "exec", "vm", "cd clone && echo more >> d7/f && git status --porcelain")
}
