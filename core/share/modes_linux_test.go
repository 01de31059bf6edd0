package share_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/share"
	"capsem/core/share/wire"
)

// nobody is who the tests are when they would be root, whom no permission stops.
const nobody = 65534

// asUser runs the rest of a test as a user that permissions hold for.
func asUser(t *testing.T) (goOn bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	dir := t.TempDir()
	for p := dir; p != "/"; p = filepath.Dir(p) {
		if info, err := os.Stat(p); err != nil || info.Mode()&0o001 == 0 && os.Chmod(p, 0o755) != nil {
			t.Skip("nobody cannot get to", p)
		}
	}
	own, err := os.Executable()
	must(t, err)
	must(t, os.WriteFile(dir+"/test", []byte(read(t, own)), 0o755))
	must(t, os.Chmod(dir+"/test", 0o755))
	must(t, os.Chown(dir, nobody, nobody))
	cmd := exec.CommandContext(t.Context(), dir+"/test", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir, "GOCOVERDIR=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as user %d: %v\n%s", nobody, err, out)
	}
	return false
}

func TestAReadOnlyDirectoryIsNotChangedToOpenWhatIsForbidden(t *testing.T) {
	if !asUser(t) {
		return
	}
	for _, readOnly := range []bool{true, false} {
		k := newKernel(t, func(c *share.Config) { c.ReadOnly = readOnly })
		write(t, k.host+"/f", "x")
		must(t, os.Mkdir(k.host+"/d", 0o755))
		for _, name := range []string{"f", "d"} {
			must(t, os.Chmod(filepath.Join(k.host, name), 0))
		}
		before := ctimes(t, k.host+"/f", k.host+"/d")
		f, d := k.mustLookup(1, "f"), k.mustLookup(1, "d")
		open, _ := k.call(wire.OpOpen, f, num32(0, 0))
		opendir, _ := k.call(wire.OpOpendir, d, num32(0, 0))
		changed := ctimes(t, k.host+"/f", k.host+"/d") != before
		if readOnly && (open != unix.EACCES || opendir != unix.EACCES || changed) {
			t.Errorf("open: %v, opendir: %v, changed: %v", open, opendir, changed)
		}
		if !readOnly && (open != 0 || opendir != 0) {
			t.Errorf("the owner's guest cannot open them: %v, %v", open, opendir)
		}
		must(t, os.Chmod(k.host+"/d", 0o755))
	}
}

func TestWhatAGuestHidesIsCounted(t *testing.T) {
	if !asUser(t) {
		return
	}
	const size = 1 << 20
	top := t.TempDir()
	for dir, mode := range map[string]os.FileMode{"none": 0, "read": 0o444, "search": 0o111} {
		must(t, os.MkdirAll(filepath.Join(top, dir, "deep"), 0o755))
		must(t, os.WriteFile(filepath.Join(top, dir, "deep", "f"), make([]byte, size), 0o600))
		must(t, os.Chmod(filepath.Join(top, dir), mode))
		t.Cleanup(func() { must(t, os.Chmod(filepath.Join(top, dir), 0o755)) })
	}
	s, err := share.New(share.Config{Root: top, Quota: share.Quota{Bytes: 64 * size}})
	must(t, err)
	if n := s.Stats().Bytes; n < 3*size || n > 4*size {
		t.Errorf("%d bytes are counted, not %d", n, 3*size)
	}
	must(t, s.Close())
	for dir, mode := range map[string]os.FileMode{"none": 0, "read": 0o444, "search": 0o111} {
		if st, err := os.Lstat(filepath.Join(top, dir)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s has mode %s", dir, st.Mode())
		}
	}
}

func ctimes(t *testing.T, names ...string) (out [2]unix.Timespec) {
	t.Helper()
	for i, name := range names {
		var st unix.Stat_t
		must(t, unix.Lstat(name, &st))
		out[i] = st.Ctim
	}
	return out
}

// The mode is changed for a moment to open what is forbidden: it must not be taken for the file's own by another who does the same.
func TestOpeningWhatIsForbiddenAtOnceKeepsItsMode(t *testing.T) {
	if !asUser(t) {
		return
	}
	k := newKernel(t, nil)
	must(t, os.Mkdir(k.host+"/d", 0o755))
	must(t, os.Chmod(k.host+"/d", 0))
	defer func() { must(t, os.Chmod(k.host+"/d", 0o755)) }()
	d := k.mustLookup(1, "d")
	for i := range 400 {
		const at = 8
		for range at {
			k.send(wire.OpOpendir, d, num32(0, 0))
		}
		var open [at][]byte
		for j := range at {
			var errno unix.Errno
			if errno, open[j] = k.answer(t); errno != 0 {
				t.Fatalf("round %d: %v", i, errno)
			}
		}
		for _, b := range open {
			k.send(wire.OpReleasedir, d, join(b[:8], num32(0, 0), num64(0)))
		}
		for range at {
			k.answer(t)
		}
		if st, err := os.Lstat(k.host + "/d"); err != nil || st.Mode().Perm() != 0 {
			t.Fatalf("round %d: its mode is %s, %v", i, st.Mode(), err)
		}
	}
}

// answer is the next answer, to whatever it is.
func (k *kernel) answer(t *testing.T) (unix.Errno, []byte) {
	t.Helper()
	for {
		must(t, k.conn.SetReadDeadline(time.Now().Add(deadline)))
		n, err := wire.ReadHead(k.conn, wire.OutSize)
		must(t, err)
		b := make([]byte, n)
		_, err = io.ReadFull(k.conn, b)
		must(t, err)
		code, of, err := wire.ParseOut(b)
		must(t, err)
		if of != 0 {
			return unix.Errno(-code), b[wire.OutSize:]
		}
	}
}
