package snapshot

import (
	"maps"
	"os"
	"slices"
	"testing"
)

// A guest's root may take every right from its files, which on the host belong to an ordinary user.
func TestFilesAndDirectoriesWithoutAnyRightsAreKeptAndComeBack(t *testing.T) {
	r := newRig(t)
	r.write("d/sub/f", "one")
	r.write("d/g", "two")
	r.write("ro/h", "three")
	modes := map[string]os.FileMode{"d/sub/f": 0, "d/sub": 0, "d": 0, "ro": 0o555}
	order := []string{"d/sub/f", "d/sub", "d", "ro"}
	shut := func() {
		for _, p := range order {
			if err := os.Chmod(r.path(p), modes[p]); err != nil {
				t.Fatal(err)
			}
		}
	}
	open := func() map[string]string {
		for _, p := range slices.Backward(order) {
			if info, err := os.Lstat(r.path(p)); err != nil || info.Mode().Perm() != modes[p] {
				t.Fatalf("%s is %v, %v, want %v", p, info, err, modes[p])
			}
			if err := os.Chmod(r.path(p), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		return r.tree()
	}
	defer func() {
		for _, p := range slices.Backward(order) {
			_ = os.Chmod(r.path(p), 0o700)
		}
	}()
	shut()
	c := r.take("manual", "one")
	if c.FilesCount != 3 || c.Skipped != 0 {
		t.Errorf("it answers %+v", c)
	}
	want := open()
	r.write("d/sub/f", "changed")
	r.remove("d/g")
	r.write("ro/h", "changed")
	shut()
	back := r.revert("", c.Checkpoint)
	if got := open(); !maps.Equal(got, want) {
		t.Errorf("it made\n%q\nwant\n%q", got, want)
	}
	shut()
	r.revert("", back.Undo)
	r.revert("d", c.Checkpoint)
	open()
	r.remove("ro/h")
	r.remove("d")
	modes = map[string]os.FileMode{}
	order = nil
	r.revert("d", c.Checkpoint)
	modes, order = map[string]os.FileMode{"d/sub/f": 0, "d/sub": 0, "d": 0}, []string{"d/sub/f", "d/sub", "d"}
	open()
}
