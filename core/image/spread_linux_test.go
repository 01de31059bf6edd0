package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"capsem/core/fault"
	"capsem/core/paths"
)

func TestWhatComesFromAnArchiveHasHolesWhereThereAreOnlyZeros(t *testing.T) {
	home := paths.Home(t.TempDir())
	dir, err := Images(home).Begin("base")
	if err != nil {
		t.Fatal(err)
	}
	vm := stopped(t)
	const size = 64 << 20
	text := bytes.Repeat([]byte("text"), 1000)
	f, err := os.Create(filepath.Join(vm.Workspace(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(text, size/2)
	if err == nil {
		err = f.Truncate(size)
	}
	for _, e := range []error{
		err, f.Close(), os.WriteFile(vm.SystemDisk(), qcow2(nil), 0o600), os.MkdirAll(home.AssetVersion("v1"), 0o700), CopyVM(vm, dir),
	} {
		if e != nil {
			t.Fatal(e)
		}
	}
	i, err := Finish(dir, Manifest{Name: "base", AssetVersion: "v1", CPUs: 1, MemoryMB: 256, DiskMB: 1024})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := i.Export(&b); err != nil {
		t.Fatal(err)
	}
	again, err := Import(home, "again", &b)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(again.Dir, "workspace", "sparse")
	got, err := os.ReadFile(path)
	if err != nil || len(got) != size || !bytes.Equal(got[size/2:size/2+len(text)], text) || !bytes.Equal(bytes.Trim(got, "\x00"), text) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("it takes %d bytes, %v", st.Blocks*512, err)
	}
}

func TestAnImportStopsBeforeTheDiskIsFull(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	left, looks := int64(40<<20), 0
	s := &spreader{f: f, free: func() (int64, error) { looks++; return left, nil }}
	block := bytes.Repeat([]byte("x"), 1<<20)
	for range 100 {
		if _, err = s.Write(block); err != nil {
			break
		}
		left -= 2 << 20 // somebody else writes as much
	}
	info, statErr := f.Stat()
	if !fault.Is(err, fault.NoSpace) || statErr != nil || info.Size() > 40<<20 || looks < 2 || looks > 20 {
		t.Errorf("%v after %d bytes and %d looks, %v", err, info.Size(), looks, statErr)
	}
}

func TestShortPiecesBetweenZerosCountAsWhatTheyTake(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	looks := 0
	s := &spreader{f: f, free: func() (int64, error) { looks++; return 1 << 40, nil }}
	for range 2 * lookEvery / leastTaken {
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(noBytes[:leastTaken-1]); err != nil {
			t.Fatal(err)
		}
	}
	if looks < 2 {
		t.Errorf("%d looks at what is free for %d bytes", looks, 2*lookEvery)
	}
}

func TestAFileThatIsToldOfInPiecesIsRefused(t *testing.T) {
	var plain, b bytes.Buffer
	w := tar.NewWriter(&plain)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "workspace/x", Mode: 0o600, Size: 1, PAXRecords: map[string]string{ // the writer knows none such
		"GNU.sparsX.major": "0", "GNU.sparsX.minor": "1", "GNU.sparsX.map": "0,1", "GNU.sparsX.numblocks": "1", "GNU.sparsX.size": "1099511627776",
	}})
	_, err2 := w.Write([]byte("x"))
	z, err3 := zstd.NewWriter(&b)
	if err := errors.Join(err, err2, err3, w.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = z.Write(bytes.ReplaceAll(plain.Bytes(), []byte("sparsX"), []byte("sparse")))
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(paths.Home(t.TempDir()), "x", &b); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "in pieces") {
		t.Errorf("%v", err)
	}
}
