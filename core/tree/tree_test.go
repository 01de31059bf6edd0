package tree_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/tree"
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
	for p := dir; p != "/" && p != "."; p = filepath.Dir(p) {
		if info, err := os.Stat(p); err != nil || info.Mode()&0o001 == 0 && os.Chmod(p, 0o755) != nil {
			t.Skip("nobody cannot get to", p)
		}
	}
	self := filepath.Join(dir, "test")
	own, err := os.Executable()
	must(t, err)
	data, err := os.ReadFile(own)
	must(t, err)
	must(t, os.WriteFile(self, data, 0o755))
	must(t, os.Chown(dir, nobody, nobody))
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "GOCOVERDIR=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as user %d: %v\n%s", nobody, err, out)
	}
	return false
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// forbidden makes a tree that its owner may not look into.
func forbidden(t *testing.T, top string) {
	t.Helper()
	for _, dir := range []string{"none/deep", "read/deep", "search/deep"} {
		must(t, os.MkdirAll(filepath.Join(top, dir), 0o755))
		must(t, os.WriteFile(filepath.Join(top, dir, "f"), []byte("text"), 0o000))
	}
	for _, at := range []struct {
		name string
		mode os.FileMode
	}{{"none/deep", 0}, {"none", 0}, {"read/deep", 0o555}, {"read", 0o444}, {"search", 0o111}, {".", 0o555}} {
		must(t, os.Chmod(filepath.Join(top, at.name), at.mode))
	}
}

func TestATreeWithoutPermissionsIsRemoved(t *testing.T) {
	if !asUser(t) {
		return
	}
	top := filepath.Join(t.TempDir(), "top")
	forbidden(t, top)
	if os.RemoveAll(top) == nil {
		t.Fatal("nothing is forbidden here")
	}
	must(t, tree.Remove(top))
	if _, err := os.Lstat(top); !os.IsNotExist(err) {
		t.Error("it is still there")
	}
	must(t, tree.Remove(top))
}

func TestATreeWithoutPermissionsIsReadAndStaysAsItIs(t *testing.T) {
	if !asUser(t) {
		return
	}
	top := filepath.Join(t.TempDir(), "top")
	forbidden(t, top)
	defer func() { must(t, tree.Remove(top)) }()
	d, err := tree.Open(top)
	must(t, err)
	for _, name := range []string{"none", "read", "search"} {
		before, err := d.Lstat(name)
		must(t, err)
		sub, err := d.Dir(name)
		must(t, err)
		if now, err := sub.Stat(); err != nil || now.Mode != before.Mode {
			t.Errorf("%s is said to be %s, not %s", name, now.Mode, before.Mode)
		}
		deep, err := sub.Dir("deep")
		must(t, err)
		names, err := deep.Names()
		must(t, err)
		f, err := deep.File("f")
		must(t, err)
		if text, err := io.ReadAll(f); err != nil || string(text) != "text" || len(names) != 1 {
			t.Errorf("%s: %q, %v, %q", name, text, err, names)
		}
		if st, err := tree.Stat(f); err != nil || st.Mode != 0 {
			t.Errorf("%s: a file of mode %s", name, st.Mode)
		}
		must(t, errors.Join(f.Close(), deep.Close(), sub.Close()))
		if after, err := d.Lstat(name); err != nil || after.Mode != before.Mode {
			t.Errorf("%s was %s and is %s", name, before.Mode, after.Mode)
		}
	}
	must(t, d.Close())
}

func TestSeveralReadATreeWithoutPermissionsAtOnce(t *testing.T) {
	if !asUser(t) {
		return
	}
	top := filepath.Join(t.TempDir(), "top")
	forbidden(t, top)
	defer func() { must(t, tree.Remove(top)) }()
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for range 200 {
				if err := readDeep(top); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	readers.Wait()
	for name, mode := range map[string]os.FileMode{"none": 0, "read": 0o444, "search": 0o111, ".": 0o555} {
		if st, err := os.Lstat(filepath.Join(top, name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s has mode %s", name, st.Mode())
		}
	}
}

func readDeep(top string) error {
	d, err := tree.Open(top)
	if err != nil {
		return err
	}
	defer d.Close()
	sub, err := d.Dir("none")
	if err != nil {
		return err
	}
	defer sub.Close()
	deep, err := sub.Dir("deep")
	if err != nil {
		return err
	}
	defer deep.Close()
	if st, err := deep.Stat(); err != nil || st.Mode.Perm() != 0 {
		return fmt.Errorf("mode %s, %w", st.Mode, err)
	}
	if st, err := deep.Lstat("f"); err != nil || st.Mode != 0 {
		return fmt.Errorf("mode of f %s, %w", st.Mode, err)
	}
	f, err := deep.File("f")
	if err != nil {
		return err
	}
	return f.Close()
}

func TestRemovingFollowsNoLink(t *testing.T) {
	outside, top := t.TempDir(), filepath.Join(t.TempDir(), "top")
	must(t, os.WriteFile(filepath.Join(outside, "f"), nil, 0o400))
	must(t, os.Chmod(outside, 0o555))
	defer func() { must(t, os.Chmod(outside, 0o755)) }()
	must(t, os.Mkdir(top, 0o755))
	must(t, os.Symlink(outside, filepath.Join(top, "link")))
	must(t, os.Symlink(outside, top+"-link"))
	must(t, errors.Join(tree.Remove(top), tree.Remove(top+"-link")))
	if st, err := os.Stat(outside); err != nil || st.Mode().Perm() != 0o555 {
		t.Error("the directory outside was changed")
	}
	if _, err := os.Stat(filepath.Join(outside, "f")); err != nil {
		t.Error(err)
	}
}

func TestATreeDeeperThanFilesCanBeOpenIsRemoved(t *testing.T) {
	top := filepath.Join(t.TempDir(), "top")
	must(t, os.Mkdir(top, 0o700))
	const depth = 3000 // its path is longer than the kernel takes
	at, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for range depth {
		must(t, unix.Mkdirat(at, "deeper", 0o700))
		next, err := unix.Openat(at, "deeper", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, errors.Join(err, unix.Close(at)))
		at = next
	}
	must(t, unix.Close(at))
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 512, Max: old.Max}))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) }()
	must(t, tree.Remove(top))
	if _, err := os.Lstat(top); !os.IsNotExist(err) {
		t.Error("it is still there")
	}
}

// Somebody swaps a directory for a link to outside, and a file for a fifo, while the tree is read and removed.
func TestSwappedNamesLeadNowhereAndHoldNobodyUp(t *testing.T) {
	base := t.TempDir()
	outside, top := filepath.Join(base, "outside"), filepath.Join(base, "top")
	must(t, os.Mkdir(outside, 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "f"), []byte("secret"), 0o600))
	for i := range 200 {
		must(t, os.MkdirAll(filepath.Join(top, "d"), 0o755))
		must(t, os.WriteFile(filepath.Join(top, "d", "f"), []byte("inside"), 0o600))
		must(t, os.Symlink(outside, filepath.Join(top, "l")))
		must(t, os.WriteFile(filepath.Join(top, "f"), []byte("inside"), 0o600))
		must(t, unix.Mkfifo(filepath.Join(top, "p"), 0o600))
		var stop atomic.Bool
		var swaps sync.WaitGroup
		for _, pair := range [][2]string{{"d", "l"}, {"f", "p"}} {
			swaps.Go(func() {
				for !stop.Load() {
					_ = exchange(filepath.Join(top, pair[0]), filepath.Join(top, pair[1]))
				}
			})
		}
		for range 20 {
			for _, text := range readSwapped(t, top) {
				if text != "inside" {
					t.Errorf("round %d: %q is read", i, text)
				}
			}
		}
		_ = tree.Remove(top) // the swapping may get in its way
		stop.Store(true)
		swaps.Wait()
		must(t, tree.Remove(top))
		if text, err := os.ReadFile(filepath.Join(outside, "f")); err != nil || string(text) != "secret" {
			t.Fatalf("round %d: outside was changed: %q, %v", i, text, err)
		}
	}
}

// readSwapped reads what can be read at the moment.
func readSwapped(t *testing.T, top string) (all []string) {
	t.Helper()
	d, err := tree.Open(top)
	must(t, err)
	defer d.Close()
	read := func(d *tree.Dir) {
		f, err := d.File("f")
		if errors.Is(err, tree.ErrOther) {
			return
		}
		must(t, err)
		text, err := io.ReadAll(f)
		must(t, errors.Join(err, f.Close()))
		all = append(all, string(text))
	}
	read(d)
	sub, err := d.Dir("d")
	if err == nil {
		read(sub)
		must(t, sub.Close())
	} else if !errors.Is(err, tree.ErrOther) {
		t.Error(err)
	}
	return all
}

func ExampleRemove() {
	fmt.Println(tree.Remove("/nothing/is/here"))
	// Output: <nil>
}
