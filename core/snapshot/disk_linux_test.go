package snapshot

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/fault"
)

// onDisk mounts a file system of its own.
func onDisk(t *testing.T, mount func(on string) error) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	on := t.TempDir()
	if err := mount(on); err != nil {
		t.Skipf("cannot mount this here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(on, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return newRig(t, func(o *Options) {
		o.Workspace, o.Dir = on+"/workspace", on+"/snapshots"
		if err := os.Mkdir(o.Workspace, 0o700); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAFullDiskIsAClearErrorAndLeavesNothing(t *testing.T) {
	r := onDisk(t, func(on string) error { return syscall.Mount("tmpfs", on, "tmpfs", 0, "size=1m") })
	r.write("small", "fits")
	id := r.manual("one")
	r.write("small", "still fits")
	r.write("large", string(bytes.Repeat([]byte("x"), 600<<10)))
	before := r.tree()
	_, err := r.s.Create(context.Background(), api.OriginManual, "two")
	wantFault(t, err, fault.NoSpace, "no space left to take a snapshot")
	_, err = r.s.Revert(context.Background(), "", id)
	wantFault(t, err, fault.NoSpace, "no space left to revert")
	if left, _ := filepath.Glob(r.opts.Dir + "/[tr]*/*"); len(left) > 0 || !maps.Equal(r.tree(), before) {
		t.Errorf("left %v", left)
	}
	if got := held(t, r.s, id)["small"]; !strings.HasSuffix(got, " fits") || len(r.list().Snapshots) != 1 {
		t.Errorf("%s holds %q", id, got)
	}
	r.remove("large")
	r.reopen()
	r.revert("", id)
}

func TestADiskThatRunsFullDuringARevertLeavesItToBeCarriedOn(t *testing.T) {
	var r *rig
	fill := false
	r = onDisk(t, func(on string) error { return syscall.Mount("tmpfs", on, "tmpfs", 0, "size=1m,nr_inodes=200") })
	r.opts.before = func(step string) {
		if fill && step == "apply" { // no inode is left for what comes late, or for the journal's end
			fill = false
			_ = os.WriteFile(r.path("late"), []byte("late"), 0o644)
			_ = os.Remove(r.path("d/f0"))
			_ = os.WriteFile(r.path("d/f0"), []byte("late"), 0o644)
			for i := 0; os.WriteFile(r.path("fill"+strconv.Itoa(i)), nil, 0o644) == nil; i++ {
			}
		}
	}
	r.reopen()
	for i := range 5 {
		r.write("d/f"+strconv.Itoa(i), "old")
	}
	id := r.manual("one")
	want := r.tree()
	for i := range 5 {
		r.write("d/f"+strconv.Itoa(i), "new")
	}
	fill = true
	_, err := r.s.Revert(context.Background(), "d", id)
	if err != nil {
		wantFault(t, err, fault.NoSpace, "no space left")
	}
	fills, _ := filepath.Glob(r.path("fill*"))
	for _, f := range fills {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	r.reopen()
	if got := sub(r.tree(), "d"); !maps.Equal(got, want) {
		t.Errorf("it made %q, want %q", got, want)
	}
}

func TestWhereBlocksCanBeSharedSnapshotsAndRevertsTakeNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	r := onDisk(t, func(on string) error {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(file, 400<<20); err != nil {
			return err
		}
		for _, argv := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1", file}, {"mount", "-o", "loop", file, on}} {
			if err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).Run(); err != nil {
				return err
			}
		}
		return nil
	})
	const size = 32 << 20
	text := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	r.write("large", string(text))
	before := taken(t, r.opts.Workspace)
	id := r.manual("one")
	r.remove("large")
	r.revert("large", id)
	if n := taken(t, r.opts.Workspace) - before; n > size/4 {
		t.Errorf("a snapshot and a revert took %d bytes", n)
	}
	if got, err := os.ReadFile(r.path("large")); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
}

func taken(t *testing.T, dir string) int64 {
	t.Helper()
	unix.Sync()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

func TestAMountInTheWorkspaceIsNotEntered(t *testing.T) {
	r := newRig(t)
	r.write("mounted/below", "below")
	r.write("f", "f")
	if err := syscall.Mount("tmpfs", r.path("mounted"), "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount this here: %v", err)
	}
	defer syscall.Unmount(r.path("mounted"), syscall.MNT_DETACH)
	r.write("mounted/other", "other")
	if c := r.take(api.OriginManual, "one"); c.FilesCount != 1 || c.Skipped != 1 {
		t.Errorf("it answers %+v", c)
	}
}
