package image

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/tree"
)

// A guest swaps a directory for a link to outside, and a file for a fifo, while its workspace is copied.
func TestSwappedNamesInAWorkspaceLeadNowhereAndHoldNobodyUp(t *testing.T) {
	outside, vm := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "f"), []byte("secret"), 0o600))
	work := filepath.Join(vm, workspace)
	must(t, os.MkdirAll(filepath.Join(work, "d"), 0o700))
	must(t, os.WriteFile(filepath.Join(work, "d", "f"), []byte("inside"), 0o600))
	must(t, os.Symlink(outside, filepath.Join(work, "l")))
	must(t, os.WriteFile(filepath.Join(work, "f"), []byte("inside"), 0o600))
	must(t, unix.Mkfifo(filepath.Join(work, "p"), 0o600))
	for i := range 50 {
		must(t, os.WriteFile(filepath.Join(work, "other"+strconv.Itoa(i)), nil, 0o600))
	}
	var stop atomic.Bool
	var swaps sync.WaitGroup
	defer swaps.Wait()
	defer stop.Store(true)
	for _, pair := range [][2]string{{"d", "l"}, {"f", "p"}} {
		swaps.Go(func() {
			for !stop.Load() {
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(work, pair[0]), unix.AT_FDCWD, filepath.Join(work, pair[1]), unix.RENAME_EXCHANGE)
			}
		})
	}
	for range 60 {
		fork := t.TempDir()
		m := NewMirror(vm, fork)
		for range 2 {
			must(t, m.Pass())
		}
		err := filepath.WalkDir(fork, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if text, err := os.ReadFile(p); err != nil || strings.Contains(string(text), "secret") {
					t.Fatalf("%s has %q, %v", p, text, err)
				}
			}
			return err
		})
		must(t, err)
		must(t, tree.Remove(fork))
	}
}
