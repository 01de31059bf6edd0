package checkpoint

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/template"
)

// The VM goes on when Make fails: what it has made must not be gone on from later.
func TestACheckpointThatMayNotLastIsNotThere(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() == 0 { // permissions hold for this thread from here on
		const nobody = 65534
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		for p := dir + "/.."; ; p += "/.." {
			info, err := os.Stat(p)
			if err != nil || os.Chmod(p, info.Mode()|0o011) != nil {
				t.Fatal("nobody cannot get to", dir)
			}
			if root, err := os.Stat("/"); err != nil || os.SameFile(root, info) {
				break
			}
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer unix.SetfsuidRetUid(0)
		if _, err := unix.SetfsuidRetUid(nobody); err != nil {
			t.Fatal(err)
		}
	}
	err := Make(dir, template.Want{}, func(*os.File) ([]byte, error) {
		return nil, os.Chmod(dir, 0o300) // what is in it can be changed, but it cannot be synced
	})
	if err == nil {
		t.Error("it is made, and may be gone after a power loss")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if Exists(dir) {
		t.Error("there is a checkpoint, and the VM goes on")
	}
}
