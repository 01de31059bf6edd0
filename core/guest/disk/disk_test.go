//go:build linux

package disk

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestARealExt4IsRecognised(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 32<<20); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Inspect(path); !errors.Is(err, ErrNotExt4) {
		t.Errorf("an empty disk: %v", err)
	}
	if out, err := exec.CommandContext(t.Context(), mke2fs[0], "-q", "-F", "-t", "ext4", "-b", "4096", path, "4096").CombinedOutput(); err != nil {
		t.Fatalf("install e2fsprogs: %v\n%s", err, out)
	}
	super, size, err := Inspect(path)
	if err != nil || super != (Super{Blocks: 4096, BlockSize: 4096}) || size != 32<<20 {
		t.Errorf("%+v, %d, %v", super, size, err)
	}
}

func TestWhatIsNoExt4(t *testing.T) {
	t.Parallel()
	good := make([]byte, superSize)
	binary.LittleEndian.PutUint16(good[magicOffset:], magic)
	binary.LittleEndian.PutUint32(good[0x18:], 7)
	for name, b := range map[string][]byte{"nothing": nil, "zeros": make([]byte, superSize), "short": good[:100], "huge blocks": good} {
		if s, err := parseSuper(b); !errors.Is(err, ErrNotExt4) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func FuzzParseSuper(f *testing.F) {
	b := make([]byte, superSize)
	binary.LittleEndian.PutUint16(b[magicOffset:], magic)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSuper(b)
		if err == nil && (s.BlockSize < 1024 || s.BlockSize > 64<<10) {
			t.Errorf("block size %d", s.BlockSize)
		}
	})
}
