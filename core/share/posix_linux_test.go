package share_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/share"
)

// posixCases are done below a directory of their own; each returns what is wrong.
var posixCases = []struct {
	name string
	do   func(t *testing.T, dir string)
}{
	{"create is exclusive", func(t *testing.T, d string) {
		write(t, d+"/f", "x")
		_, err := os.OpenFile(d+"/f", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		want(t, err, unix.EEXIST)
	}},
	{"a mode is exactly what was asked for", func(t *testing.T, d string) {
		old := unix.Umask(0)
		defer unix.Umask(old)
		for _, mode := range []uint32{0, 0o777, 0o641, 0o1755} {
			p := fmt.Sprintf("%s/f%o", d, mode)
			fd, err := unix.Open(p, unix.O_CREAT|unix.O_WRONLY, mode)
			must(t, err)
			must(t, unix.Close(fd))
			if got := stat(t, p).Mode & 0o7777; got != mode {
				t.Errorf("mode %o, want %o", got, mode)
			}
		}
	}},
	{"everything belongs to root and chown is content", func(t *testing.T, d string) {
		write(t, d+"/f", "x")
		must(t, os.Chown(d+"/f", 1234, 99))
		if st := stat(t, d+"/f"); st.Uid != 0 || st.Gid != 0 {
			t.Errorf("owner %d:%d", st.Uid, st.Gid)
		}
	}},
	{"mkdir, rmdir and what they refuse", func(t *testing.T, d string) {
		must(t, os.Mkdir(d+"/a", 0o755))
		want(t, os.Mkdir(d+"/a", 0o755), unix.EEXIST)
		write(t, d+"/a/f", "x")
		want(t, unix.Rmdir(d+"/a"), unix.ENOTEMPTY)
		want(t, unix.Rmdir(d+"/a/f"), unix.ENOTDIR)
		want(t, unix.Unlink(d+"/a"), unix.EISDIR)
		must(t, os.Remove(d+"/a/f"))
		must(t, os.Remove(d+"/a"))
		_, err := os.Stat(d + "/a")
		want(t, err, unix.ENOENT)
		_, err = os.Stat(d + "/a/f")
		want(t, err, unix.ENOENT)
	}},
	{"rename replaces, refuses and exchanges", func(t *testing.T, d string) {
		write(t, d+"/a", "a")
		write(t, d+"/b", "b")
		want(t, unix.Renameat2(unix.AT_FDCWD, d+"/a", unix.AT_FDCWD, d+"/b", unix.RENAME_NOREPLACE), unix.EEXIST)
		must(t, unix.Renameat2(unix.AT_FDCWD, d+"/a", unix.AT_FDCWD, d+"/b", unix.RENAME_EXCHANGE))
		if read(t, d+"/a") != "b" || read(t, d+"/b") != "a" {
			t.Error("not exchanged")
		}
		must(t, os.Rename(d+"/a", d+"/b"))
		if read(t, d+"/b") != "b" {
			t.Error("not replaced")
		}
		must(t, os.MkdirAll(d+"/x/y", 0o755))
		want(t, unix.Rename(d+"/x", d+"/x/y/z"), unix.EINVAL)
		want(t, unix.Rename(d+"/b", d+"/x"), unix.EISDIR)
	}},
	{"an open file lives on in a renamed directory", func(t *testing.T, d string) {
		must(t, os.MkdirAll(d+"/p/q", 0o755))
		write(t, d+"/p/q/f", "text")
		must(t, os.Rename(d+"/p", d+"/r"))
		must(t, os.Chmod(d+"/r/q/f", 0o600))
		if read(t, d+"/r/q/f") != "text" {
			t.Error("differs")
		}
	}},
	{"hard links count and share", func(t *testing.T, d string) {
		write(t, d+"/a", "1")
		must(t, os.Link(d+"/a", d+"/b"))
		write(t, d+"/b", "22")
		if st := stat(t, d+"/a"); st.Nlink != 2 || st.Size != 2 || st.Ino != stat(t, d+"/b").Ino {
			t.Errorf("%d links, %d bytes", st.Nlink, st.Size)
		}
		must(t, os.Remove(d+"/a"))
		if stat(t, d+"/b").Nlink != 1 || read(t, d+"/b") != "22" {
			t.Error("the other name is wrong")
		}
		want(t, unix.Link(d, d+"/c"), unix.EPERM)
	}},
	{"symbolic links are data", func(t *testing.T, d string) {
		for _, target := range []string{"/etc/passwd", "../../..", "nothing", strings.Repeat("x", 4000), "\xff\xfe"} {
			must(t, os.Symlink(target, d+"/l"))
			got, err := os.Readlink(d + "/l")
			must(t, err)
			if got != target || stat(t, d+"/l").Size != int64(len(target)) {
				t.Errorf("target %q", got)
			}
			must(t, os.Remove(d+"/l"))
		}
	}},
	{"chmod keeps setuid from the host", func(t *testing.T, d string) {
		write(t, d+"/f", "x")
		must(t, unix.Chmod(d+"/f", 0o6755))
		if got := stat(t, d+"/f").Mode & 0o7777; got != 0o755 {
			t.Errorf("mode %o", got)
		}
	}},
	{"truncate grows, shrinks and leaves zeros", func(t *testing.T, d string) {
		write(t, d+"/f", "0123456789")
		must(t, os.Truncate(d+"/f", 4))
		must(t, os.Truncate(d+"/f", 8))
		if read(t, d+"/f") != "0123\x00\x00\x00\x00" {
			t.Errorf("%q", read(t, d+"/f"))
		}
	}},
	{"times are exact to the nanosecond, before 1970 and now", func(t *testing.T, d string) {
		write(t, d+"/f", "x")
		must(t, os.Symlink("f", d+"/l"))
		for _, p := range []string{d + "/f", d + "/l", d} {
			ts := []unix.Timespec{{Sec: 1234567890, Nsec: 123456789}, {Sec: -5, Nsec: 999999999}}
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW))
			if st := stat(t, p); st.Mtim != ts[1] || st.Atim != ts[0] {
				t.Errorf("%s: %v %v", p, st.Atim, st.Mtim)
			}
		}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, d+"/f", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}, 0))
		if st := stat(t, d+"/f"); st.Atim.Sec != 1234567890 || time.Since(time.Unix(st.Mtim.Unix())) > time.Minute {
			t.Errorf("%v %v", st.Atim, st.Mtim)
		}
	}},
	{"a removed file can be used while open", func(t *testing.T, d string) {
		f, err := os.OpenFile(d+"/f", os.O_RDWR|os.O_CREATE, 0o644)
		must(t, err)
		defer f.Close()
		must(t, os.Remove(d+"/f"))
		_, err = f.WriteString("still here")
		must(t, err)
		st, err := f.Stat()
		must(t, err)
		b := make([]byte, 10)
		_, err = f.ReadAt(b, 0)
		if err != nil || string(b) != "still here" || st.Size() != 10 {
			t.Errorf("%q %v %d", b, err, st.Size())
		}
		must(t, f.Truncate(3))
		must(t, f.Chmod(0o600))
	}},
	{"appends go to the end", func(t *testing.T, d string) {
		a, err := os.OpenFile(d+"/f", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		must(t, err)
		defer a.Close()
		b, err := os.OpenFile(d+"/f", os.O_APPEND|os.O_WRONLY, 0o644)
		must(t, err)
		defer b.Close()
		for range 10 {
			_, err1 := a.WriteString("a")
			_, err2 := b.WriteString("b")
			must(t, errors.Join(err1, err2))
		}
		if got := read(t, d+"/f"); got != strings.Repeat("ab", 10) {
			t.Errorf("%q", got)
		}
	}},
	{"a shared map is written through", func(t *testing.T, d string) {
		write(t, d+"/f", strings.Repeat("x", 8192))
		f, err := os.OpenFile(d+"/f", os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err)
		copyMapped(t, m[4000:], []byte("mapped"))
		must(t, unix.Msync(m, unix.MS_SYNC))
		must(t, unix.Munmap(m))
		if got := read(t, d+"/f")[4000:4006]; got != "mapped" {
			t.Errorf("%q", got)
		}
	}},
	{"holes stay holes and can be found", func(t *testing.T, d string) {
		f, err := os.Create(d + "/f")
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte("end"), 64<<20)
		must(t, err)
		if st := stat(t, d+"/f"); st.Size != 64<<20+3 || st.Blocks*512 > 1<<20 {
			t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
		}
		at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
		if err != nil || at == 0 {
			t.Errorf("data at %d: %v", at, err)
		}
		must(t, unix.Fallocate(int(f.Fd()), 0, 0, 1<<20))
		must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20))
	}},
	{"user attributes are kept, others refused", func(t *testing.T, d string) {
		write(t, d+"/f", "x")
		err := unix.Setxattr(d+"/f", "user.a", []byte("value"), 0)
		if errors.Is(err, unix.ENOTSUP) {
			t.Skip("the host's file system has no attributes")
		}
		must(t, err)
		want(t, unix.Setxattr(d+"/f", "user.a", nil, unix.XATTR_CREATE), unix.EEXIST)
		b := make([]byte, 100)
		n, err := unix.Getxattr(d+"/f", "user.a", b)
		if err != nil || string(b[:n]) != "value" {
			t.Errorf("%q %v", b[:n], err)
		}
		_, err = unix.Getxattr(d+"/f", "user.a", b[:2])
		want(t, err, unix.ERANGE)
		n, err = unix.Listxattr(d+"/f", b)
		if err != nil || string(b[:n]) != "user.a\x00" {
			t.Errorf("%q %v", b[:n], err)
		}
		want(t, unix.Setxattr(d+"/f", "trusted.a", []byte("v"), 0), unix.ENOTSUP)
		want(t, unix.Setxattr(d+"/f", "security.capability", make([]byte, 20), 0), unix.EINVAL, unix.ENOTSUP)
		must(t, unix.Removexattr(d+"/f", "user.a"))
		_, err = unix.Getxattr(d+"/f", "user.a", b)
		want(t, err, unix.ENODATA)
	}},
	{"names have 255 bytes and no encoding", func(t *testing.T, d string) {
		for _, name := range []string{strings.Repeat("n", 255), "\xff\xfe\x01", "new\nline", " ", "-", "...", "ü"} {
			write(t, d+"/"+name, name)
			if read(t, d+"/"+name) != name {
				t.Errorf("%q differs", name)
			}
		}
		_, err := os.Stat(d + "/" + strings.Repeat("n", 256))
		want(t, err, unix.ENAMETOOLONG)
		l, err := os.ReadDir(d)
		if err != nil || len(l) != 7 {
			t.Errorf("%d names: %v", len(l), err)
		}
	}},
	{"deep paths", func(t *testing.T, d string) {
		fd, err := unix.Open(d, unix.O_DIRECTORY|unix.O_RDONLY, 0)
		must(t, err)
		for range 40 {
			name := strings.Repeat("d", 200)
			must(t, unix.Mkdirat(fd, name, 0o755))
			next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_RDONLY, 0)
			must(t, err)
			must(t, unix.Close(fd))
			fd = next
		}
		f, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_RDWR, 0o644)
		must(t, err)
		_, err = unix.Write(f, []byte("deep"))
		must(t, errors.Join(err, unix.Close(f), unix.Close(fd)))
		must(t, os.RemoveAll(d+"/"+strings.Repeat("d", 200)))
	}},
	{"fifos and sockets are special, devices refused", func(t *testing.T, d string) {
		must(t, unix.Mkfifo(d+"/p", 0o644))
		must(t, unix.Mknod(d+"/s", unix.S_IFSOCK|0o644, 0))
		if stat(t, d+"/p").Mode&unix.S_IFMT != unix.S_IFIFO || stat(t, d+"/s").Mode&unix.S_IFMT != unix.S_IFSOCK {
			t.Error("wrong kinds")
		}
		want(t, unix.Mknod(d+"/n", unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))), unix.EPERM)
		want(t, unix.Mknod(d+"/n", unix.S_IFBLK|0o644, int(unix.Mkdev(8, 0))), unix.EPERM)
	}},
	{"a file without a name gets one", func(t *testing.T, d string) {
		fd, err := unix.Open(d, unix.O_TMPFILE|unix.O_RDWR, 0o644)
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("the kernel or the host's file system has no O_TMPFILE")
		}
		must(t, err)
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte("named"))
		must(t, err)
		must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, d+"/f", unix.AT_SYMLINK_FOLLOW))
		if read(t, d+"/f") != "named" {
			t.Error("differs")
		}
	}},
	{"locks are between programs of the guest", func(t *testing.T, d string) {
		a, err := os.Create(d + "/f")
		must(t, err)
		defer a.Close()
		b, err := os.Open(d + "/f")
		must(t, err)
		defer b.Close()
		must(t, unix.Flock(int(a.Fd()), unix.LOCK_EX))
		want(t, unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	}},
	{"copies within the kernel", func(t *testing.T, d string) {
		write(t, d+"/a", strings.Repeat("copy", 300000))
		a, err := os.Open(d + "/a")
		must(t, err)
		defer a.Close()
		b, err := os.Create(d + "/b")
		must(t, err)
		defer b.Close()
		left := 1200000
		for left > 0 {
			n, err := unix.CopyFileRange(int(a.Fd()), nil, int(b.Fd()), nil, left, 0)
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			left -= n
		}
		if read(t, d+"/b") != strings.Repeat("copy", 300000) {
			t.Error("differs")
		}
	}},
}

func want(t *testing.T, err error, allowed ...error) {
	t.Helper()
	for _, e := range allowed {
		if errors.Is(err, e) {
			return
		}
	}
	t.Errorf("error %v, want %v", err, allowed)
}

func stat(t *testing.T, p string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(p, &st))
	return st
}

func TestPOSIX(t *testing.T) {
	r := newRig(t, nil)
	for i, c := range posixCases {
		t.Run(c.name, func(t *testing.T) {
			d := r.in(strconv.Itoa(i))
			must(t, os.Mkdir(d, 0o755))
			c.do(t, d)
		})
	}
}

func TestFilesOfTheGuestBelongToTheConfiguredUser(t *testing.T) {
	r := newRig(t, func(c *share.Config) { c.UID, c.GID = 1234, 2345 })
	write(t, r.in("f"), "x")
	must(t, os.Mkdir(r.in("d"), 0o755))
	must(t, os.Symlink("f", r.in("l")))
	for _, name := range []string{"f", "d", "l"} {
		if st := stat(t, r.on(name)); st.Uid != 1234 || st.Gid != 2345 {
			t.Errorf("%s on the host belongs to %d:%d", name, st.Uid, st.Gid)
		}
		if st := stat(t, r.in(name)); st.Uid != 0 || st.Gid != 0 {
			t.Errorf("%s in the guest belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
}

func TestGitWorks(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip(err)
	}
	r := newRig(t, func(c *share.Config) { c.UID, c.GID = 1234, 1234 })
	run := func(args ...string) string {
		cmd := exec.Command(git, append([]string{"-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
		cmd.Dir = r.guest
		cmd.Env = []string{"HOME=/nonexistent", "PATH=/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("init", "-q")
	for i := range 200 {
		write(t, r.in(fmt.Sprintf("f%d", i)), strconv.Itoa(i))
	}
	run("add", ".")
	run("commit", "-qm", "one")
	if out := run("status", "--porcelain"); out != "" {
		t.Errorf("status: %s", out)
	}
	write(t, r.on("f7"), "edited on the host")
	soon(t, "the edit in git status", func() bool { return run("status", "--porcelain") == " M f7\n" })
	run("gc", "-q")
	run("fsck", "--strict")
}

func TestManyEntriesAreListedOnce(t *testing.T) {
	r := newRig(t, nil)
	const n = 12000
	must(t, os.Mkdir(r.on("d"), 0o755))
	for i := range n {
		write(t, r.on("d", strconv.Itoa(i)), "")
	}
	for range 2 {
		seen := map[string]bool{}
		l, err := os.ReadDir(r.in("d"))
		must(t, err)
		for _, e := range l {
			if seen[e.Name()] {
				t.Fatalf("%s twice", e.Name())
			}
			seen[e.Name()] = true
			if _, err := e.Info(); err != nil {
				t.Fatal(err)
			}
		}
		if len(seen) != n {
			t.Fatalf("%d names", len(seen))
		}
	}
	must(t, os.RemoveAll(r.in("d")))
	if l, _ := filepath.Glob(r.on("*")); len(l) != 0 {
		t.Error("left:", l)
	}
}

func TestFourThousandFilesAreOpenAtOnce(t *testing.T) {
	r := newRig(t, nil)
	const n = 4096
	var lim unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &lim))
	if lim.Cur < 3*n {
		t.Skip("guest and host of this test are one process, which may have open only", lim.Cur)
	}
	files := make([]*os.File, 0, n)
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for i := range n {
		f, err := os.Create(r.in(strconv.Itoa(i)))
		must(t, err)
		files = append(files, f)
	}
	for i, f := range files {
		_, err := fmt.Fprint(f, i)
		must(t, err)
	}
	for i := range n {
		if !bytes.Equal([]byte(read(t, r.on(strconv.Itoa(i)))), fmt.Append(nil, i)) {
			t.Fatal(i)
		}
	}
}
