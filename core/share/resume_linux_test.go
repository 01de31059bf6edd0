package share_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/share"
)

func TestBrokenStreamsAreNotNoticedByPrograms(t *testing.T) {
	r := newRig(t, nil)
	var workers sync.WaitGroup
	var done atomic.Int32
	const each = 150
	for w := range 4 {
		workers.Go(func() {
			defer done.Add(1)
			f, err := os.OpenFile(r.in(fmt.Sprint("log", w)), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for i := range each {
				d := r.in(fmt.Sprintf("d%d-%d", w, i))
				_, err := fmt.Fprintf(f, "%d\n", i)
				// Each of these fails when it is carried out twice.
				err = errors.Join(err, os.Mkdir(d, 0o755), os.Rename(d, d+"x"), os.Remove(d+"x"))
				x, err2 := os.OpenFile(d, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
				if err = errors.Join(err, err2); err == nil {
					err = errors.Join(x.Close(), os.Remove(d))
				}
				if err != nil {
					t.Errorf("worker %d, round %d: %v", w, i, err)
					return
				}
			}
		})
	}
	last := uint64(0)
	soon(t, "all rounds", func() bool {
		if now := r.current().Stats().Requests; now > last+100 {
			last = now
			r.breakStream()
		}
		return done.Load() == 4
	})
	workers.Wait()
	for w := range 4 {
		var want strings.Builder
		for i := range each {
			fmt.Fprintf(&want, "%d\n", i)
		}
		if got := read(t, r.on(fmt.Sprint("log", w))); got != want.String() {
			t.Errorf("log %d: %d bytes, want %d", w, len(got), want.Len())
		}
	}
}

// restart saves the server, closes it, lets change happen, and goes on with a new one.
func (r *rig) restart(t *testing.T, change func(*share.Config)) {
	t.Helper()
	r.mu.Lock()
	r.paused = true
	old := r.server
	r.mu.Unlock()
	r.breakStream()
	r.serving.Wait()
	state, err := old.Save(t.Context())
	must(t, err)
	must(t, old.Close())
	config := r.config
	config.State = state
	if change != nil {
		change(&config)
	}
	server, err := share.New(config)
	must(t, err)
	r.mu.Lock()
	r.server, r.paused = server, false
	r.mu.Unlock()
}

func TestSavedServerGoesOnWithOpenFiles(t *testing.T) {
	r := newRig(t, nil)
	must(t, os.MkdirAll(r.in("d/e"), 0o755))
	f, err := os.OpenFile(r.in("d/e/f"), os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("before")
	must(t, err)
	write(t, r.in("cached"), "old text")
	write(t, r.in("removed"), "x")
	gone, err := os.Open(r.in("removed"))
	must(t, err)
	defer gone.Close()
	dir, err := os.Open(r.in("d"))
	must(t, err)
	defer dir.Close()
	if read(t, r.in("cached")) != "old text" {
		t.Fatal("not written")
	}
	if _, err := os.Stat(r.in("added")); !os.IsNotExist(err) {
		t.Fatal(err)
	}
	r.restart(t, func(*share.Config) {
		write(t, r.on("cached"), "NEW TEXT")
		write(t, r.on("added"), "added")
		must(t, os.Remove(r.on("removed")))
	})
	_, err = f.WriteString(" and after")
	must(t, err)
	if got := read(t, r.on("d/e/f")); got != "before and after" {
		t.Errorf("host reads %q", got)
	}
	if names, err := dir.Readdirnames(-1); err != nil || len(names) != 1 {
		t.Errorf("open directory: %v %v", names, err)
	}
	soon(t, "a file changed meanwhile", func() bool { return read(t, r.in("cached")) == "NEW TEXT" })
	soon(t, "a file added meanwhile", func() bool { _, err := os.Stat(r.in("added")); return err == nil })
	soon(t, "a file removed meanwhile", func() bool { _, err := os.Stat(r.in("removed")); return os.IsNotExist(err) })
	_, err = unix.Pread(int(gone.Fd()), make([]byte, 10), 4096)
	want(t, err, unix.ESTALE)
}

func TestSavedServerGoesOnWithACopyOfTheDirectory(t *testing.T) {
	r := newRig(t, nil)
	must(t, os.Mkdir(r.in("d"), 0o755))
	f, err := os.OpenFile(r.in("d/f"), os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("before")
	must(t, err)
	r.settle() // else it would be written to the copy only
	fork := t.TempDir()
	r.restart(t, func(c *share.Config) {
		must(t, os.CopyFS(fork, os.DirFS(r.host)))
		c.Root, c.Copied = fork, true
	})
	_, err = f.WriteString(" and after")
	must(t, err)
	if got := read(t, fork+"/d/f"); got != "before and after" {
		t.Errorf("the copy has %q", got)
	}
	if got := read(t, r.on("d/f")); got != "before" {
		t.Errorf("the original has %q", got)
	}
	_, err = f.Seek(0, io.SeekStart)
	must(t, err)
	if b, err := io.ReadAll(f); err != nil || string(b) != "before and after" {
		t.Errorf("guest reads %q: %v", b, err)
	}
}

func TestDamagedStateIsRefused(t *testing.T) {
	s, err := share.New(share.Config{Root: t.TempDir()})
	must(t, err)
	state, err := s.Save(t.Context())
	must(t, errors.Join(err, s.Close()))
	for _, bad := range [][]byte{{}, {0xff}, state[:len(state)-1], append(slices.Clip(state), 0), []byte("\xa1\x67version\x02")} {
		s, err := share.New(share.Config{Root: t.TempDir(), State: bad})
		if !errors.Is(err, share.ErrState) {
			t.Errorf("state %x: %v", bad[:min(8, len(bad))], err)
		}
		if s != nil {
			_ = s.Close()
		}
	}
}

func TestAMountOfATemplateIsThatOfTheVMWhichGoesOnFromIt(t *testing.T) {
	r := newRig(t, nil)
	var before unix.Stat_t
	must(t, unix.Stat(r.in(), &before)) // the kernel knows the root, and nothing in it
	other := t.TempDir()
	must(t, os.Chmod(other, 0o701))
	write(t, other+"/file", "of the VM")
	config := r.config
	config.Root = other
	server, err := share.New(config)
	must(t, err)
	r.mu.Lock()
	old := r.server
	r.server, r.host = server, other
	r.mu.Unlock()
	r.breakStream()
	must(t, old.Close())
	var after unix.Stat_t
	soon(t, "the other root", func() bool { return unix.Stat(r.in(), &after) == nil && after.Mode&0o777 == 0o701 })
	if got := read(t, r.in("file")); got != "of the VM" {
		t.Errorf("the guest reads %q", got)
	}
	write(t, r.in("made"), "by the guest")
	if got := read(t, r.on("made")); got != "by the guest" {
		t.Errorf("the host reads %q", got)
	}
}
