package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// xfs mounts a new XFS, which can share blocks, from a file.
func xfs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	dir := t.TempDir()
	file, on := filepath.Join(dir, "disk"), filepath.Join(dir, "on")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 400<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(on, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1", file}, {"mount", "-o", "loop", file, on}} {
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no XFS here: %v: %v: %s", argv, err, out)
		}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(on, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return on
}

// used is what is taken of a file system, in bytes.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	syscall.Sync()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

func TestCopiesShareTheirBlocksWhereTheFileSystemCan(t *testing.T) {
	dir := xfs(t)
	const size = 64 << 20
	from := filepath.Join(dir, "vm")
	if err := os.MkdirAll(filepath.Join(from, workspace, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{diskFile, filepath.Join(workspace, "sub", "large")} {
		if err := os.WriteFile(filepath.Join(from, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := used(t, dir)
	to := filepath.Join(dir, "copy")
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := copyAll(from, to); err != nil {
		t.Fatal(err)
	}
	if more := used(t, dir) - before; more > size/8 {
		t.Errorf("copies of 2 x %d bytes take %d", size, more)
	}
	if info, err := os.Stat(filepath.Join(to, workspace, "sub", "large")); err != nil || info.Size() != size {
		t.Errorf("the copy in the workspace: %v, %v", info, err)
	}
}
