package image

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// immovable makes a file that cannot be removed, until it is loosened: something is mounted on it.
func immovable(t *testing.T, name string) (loosen func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	if err := unix.Mount(name, name, "", unix.MS_BIND, ""); err != nil {
		t.Skip("nothing can be mounted here:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(name, unix.MNT_DETACH) })
	return func() {
		for _, at := range []string{name, filepath.Join(filepath.Dir(name)+goneSuffix, filepath.Base(name))} {
			if unix.Unmount(at, unix.MNT_DETACH) == nil {
				return
			}
		}
		t.Error("it is still mounted")
	}
}
