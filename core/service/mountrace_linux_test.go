package service

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/paths"
	"capsem/core/proto"
)

// A guest that shares the directory above may swap what is to be shared for a link while it is looked at.
func TestWhatIsSharedIsWhatWasLookedAt(t *testing.T) {
	own, above := t.TempDir(), t.TempDir()
	t.Setenv("HOME", own)
	s := &Service{opts: Options{Home: paths.Home(t.TempDir())}}
	work, link := filepath.Join(above, "work"), filepath.Join(above, "link")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(own, link); err != nil {
		t.Fatal(err)
	}
	var swapping sync.WaitGroup
	done := make(chan struct{})
	swapping.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, work, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	})
	for range 5000 {
		m := proto.Mount{Host: work, Guest: "/mnt/x"}
		if err := s.checkMount(&m, false); err == nil && m.Host == own {
			t.Error("the home directory is shared")
			break
		}
	}
	close(done)
	swapping.Wait()
}
