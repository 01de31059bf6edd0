package guard

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fullDisk is a disk of one page that is taken, mostly; empty when this user may not mount one.
func fullDisk(t *testing.T) (dir string, filler *os.File) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size=4k"); err != nil {
		if os.Geteuid() == 0 {
			t.Errorf("mount: %v", err)
		}
		return "", nil
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = filler.Close() })
	return dir, filler
}

func take(t *testing.T, filler *os.File) {
	t.Helper()
	if _, err := filler.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
}

func TestALockOnAFullDiskIsHeldWithoutAName(t *testing.T) {
	dir, filler := fullDisk(t)
	if dir == "" {
		return // only root can mount one
	}
	take(t, filler)
	path := filepath.Join(dir, "lock")
	l, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire(path); !errors.Is(err, ErrHeld) {
		t.Errorf("taking it again gives %v", err)
	}
	if pid, held, err := Holder(path); err != nil || !held || pid != 0 {
		t.Errorf("holder is %d %v (%v), want an unknown one", pid, held, err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

// A hole takes no room, so that what a former holder left is there and cannot be written over.
func TestALockOnAFullDiskDoesNotNameAFormerHolder(t *testing.T) {
	dir, filler := fullDisk(t)
	if dir == "" {
		return // only root can mount one
	}
	f, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(5); err != nil {
		t.Fatal(err)
	}
	take(t, filler)
	if err := sign(f); err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("%d bytes of it are left, %v", info.Size(), err)
	}
}

func TestALockThatCannotBeSignedForAnotherReasonIsNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path) // for reading only
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := sign(f); !errors.Is(err, unix.EBADF) {
		t.Errorf("signed with %v", err)
	}
}
