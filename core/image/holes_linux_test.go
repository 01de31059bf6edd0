package image

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestHolesOfAWorkspaceTakeNoSpaceInItsCopies(t *testing.T) {
	const size, at = 8 << 30, 5<<30 + 12345
	vm, data := t.TempDir(), bytes.Repeat([]byte("data"), 1000)
	if err := os.Mkdir(filepath.Join(vm, workspace), 0o700); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(vm, workspace, "f")
	f, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{0, at, size - int64(len(data))} {
		if _, err := f.WriteAt(data, off); err != nil {
			t.Fatal(err)
		}
	}
	tree, mirrored, disk := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "disk")
	for name, copied := range map[string]struct {
		do   func() error
		path string
	}{
		"copy":   {func() error { return CopyWorkspace(vm, tree) }, filepath.Join(tree, workspace, "f")},
		"mirror": {func() error { return NewMirror(vm, mirrored).Pass() }, filepath.Join(mirrored, workspace, "f")},
		"disk":   {func() error { return CopyDisk(from, disk) }, disk},
	} {
		if err := copied.do(); err != nil {
			t.Fatal(name, err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(copied.path, &st); err != nil || st.Size != size || st.Blocks*512 > 1<<20 {
			t.Errorf("%s: %d bytes in %d, %v", name, st.Size, st.Blocks*512, err)
		}
		got, err := os.Open(copied.path)
		if err != nil {
			t.Fatal(name, err)
		}
		for _, off := range []int64{0, at, size - int64(len(data))} {
			buf := make([]byte, len(data))
			if _, err := got.ReadAt(buf, off); err != nil || !bytes.Equal(buf, data) {
				t.Errorf("%s: other data at %d, %v", name, off, err)
			}
		}
		if err := got.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
