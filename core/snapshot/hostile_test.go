package snapshot

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/fault"
)

const secret = "secret of the host"

// besideOutside is a workspace with a link to a directory that has the same names as one of its own, but holds secrets.
func besideOutside(t *testing.T, change func(*Options)) (r *rig, outside string) {
	t.Helper()
	r = newRig(t, change)
	outside = r.dir + "/outside"
	if err := os.MkdirAll(outside+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/file", "/sub/deep", "/only-there"} {
		if err := os.WriteFile(outside+name, []byte(secret), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"dir/file", "dir/sub/deep", "top"} {
		r.write(p, "mine")
	}
	if err := os.Symlink(outside, r.path("link")); err != nil {
		t.Fatal(err)
	}
	return r, outside
}

// noSecret checks that no snapshot holds anything from outside.
func (r *rig) noSecret() {
	r.t.Helper()
	for _, h := range r.s.headers() {
		for path, what := range held(r.t, r.s, h.id()) {
			if strings.Contains(what, secret) {
				r.t.Errorf("%s holds %s from outside", h.id(), path)
			}
		}
	}
}

func TestALinkThatAppearsJustBeforeAStepIsNotFollowed(t *testing.T) {
	for _, at := range []string{"look dir", "look dir/sub", "read dir/file", "read dir/sub/deep", "apply dir/file", "apply dir/sub", "apply dir/only-there"} {
		t.Run(at, func(t *testing.T) {
			var r *rig
			armed := false
			r, outside := besideOutside(t, func(o *Options) {
				o.Log, o.readers = nil, 1
				o.during = func(step, path string) {
					if !armed || step+" "+path != at {
						return
					}
					armed = false
					ws, err := unix.Open(o.Workspace, unix.O_RDONLY|unix.O_DIRECTORY, 0)
					if err == nil {
						err = errors.Join(exchange(ws, "link", ws, "dir"), unix.Close(ws))
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
			before := tree(t, outside)
			id := r.manual("good")
			r.write("dir/file", "mine too")
			r.remove("dir/sub")
			r.write("dir/only-there", "mine")
			if strings.HasPrefix(at, "apply") {
				armed = true
				_, _ = r.s.Revert(context.Background(), "", id)
			} else {
				r.remove("dir")
				r.write("dir/file", "again")
				r.write("dir/sub/deep", "again")
				armed = true
				r.take(api.OriginManual, "two")
			}
			if armed {
				t.Fatal("it never came to this step")
			}
			if got := tree(t, outside); !maps.Equal(got, before) {
				t.Errorf("outside there is now %q", got)
			}
			r.noSecret()
		})
	}
}

func TestADirectorySwappedForALinkNeverLeadsOutside(t *testing.T) {
	r, outside := besideOutside(t, func(o *Options) { o.Log = nil })
	before := tree(t, outside)
	id := r.manual("good")

	stop := make(chan struct{})
	var swaps atomic.Int64
	var wait sync.WaitGroup
	wait.Go(func() { swap(t, r, stop, &swaps) })
	end := time.Now().Add(3 * time.Second / 2)
	done := 0
	for time.Now().Before(end) {
		for _, path := range []string{"", "dir", "dir/file", "dir/sub", "dir/only-there"} {
			if _, err := r.s.Revert(context.Background(), path, id); err == nil {
				done++
			}
			_, _ = r.s.Create(context.Background(), api.OriginAuto, "")
			_, _ = r.s.Changes(context.Background())
			_, _ = r.s.Diff(context.Background(), id, "", "")
			_, _ = r.s.History(context.Background(), "dir/only-there")
		}
	}
	close(stop)
	wait.Wait()
	if done == 0 || swaps.Load() < 100 {
		t.Errorf("%d reverts, %d swaps", done, swaps.Load())
	}
	if got := tree(t, outside); !maps.Equal(got, before) {
		t.Errorf("outside there is now %q", got)
	}
	r.noSecret()
	_, err := r.s.Revert(context.Background(), "", id)
	if err != nil && !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	want, got := held(t, r.s, id), r.tree()
	delete(got, "pipe") // no snapshot has such a thing, so none is touched
	if !maps.Equal(got, want) {
		t.Errorf("in the end there is\n%q\nwant\n%q", got, want)
	}
}

// swap is a guest that swaps as fast as it can.
func swap(t *testing.T, r *rig, stop <-chan struct{}, swaps *atomic.Int64) {
	ws, err := unix.Open(r.opts.Workspace, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(ws)
	for {
		select {
		case <-stop:
			return
		default:
		}
		_ = exchange(ws, "link", ws, "dir")
		_ = exchange(ws, "link", ws, "top")
		_ = unix.Unlinkat(ws, "pipe", 0)
		_ = unix.Mkfifo(r.path("pipe"), 0o600)
		_ = exchange(ws, "pipe", ws, "top")
		swaps.Add(1)
	}
}

func TestWhatIsNeitherFileDirectoryNorLinkIsSkippedAndCounted(t *testing.T) {
	r := newRig(t)
	r.write("f", "f")
	if err := unix.Mkfifo(r.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := r.take(api.OriginManual, "one")
	if c.Skipped != 1 || c.FilesCount != 1 {
		t.Errorf("it answers %+v", c)
	}
	r.write("f", "g")
	r.revert("", c.Checkpoint)
	if _, err := os.Lstat(r.path("pipe")); err != nil {
		t.Errorf("the pipe is gone: %v", err)
	}
}

func TestAFileThatKeepsChangingIsTakenWithAMarkAndReadAgain(t *testing.T) {
	var r *rig
	changing := true
	n := 0
	r = newRig(t, func(o *Options) {
		o.during = func(step, path string) {
			if step == "was read" && changing {
				n++
				r.write(path, strings.Repeat("x", n))
			}
		}
	})
	r.write("busy", "")
	id := r.manual("one")
	if n != maxTries {
		t.Errorf("it was read %d times, want %d", n, maxTries)
	}
	h, err := r.s.lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.s.manifest(h)
	if err != nil || m.find("busy").marks != markTorn {
		t.Errorf("it has no mark: %+v, %v", m.find("busy"), err)
	}
	changing = false
	if got := held(t, r.s, r.manual("two"))["busy"]; !strings.HasSuffix(got, " "+strings.Repeat("x", n)) {
		t.Errorf("it holds %q", got)
	}
}

func TestAHugeFileThatIsMostlyHoleCostsLittleAndComesBack(t *testing.T) {
	r := newRig(t)
	f, err := os.Create(r.path("huge"))
	if err != nil {
		t.Fatal(err)
	}
	const size, at = 1 << 40, 1 << 39
	if err := f.Truncate(size); err != nil {
		t.Skipf("no file of this size here: %v", err)
	}
	if _, err := f.WriteAt([]byte("in the middle"), at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	id := r.manual("one")
	if used := r.s.Used(); used > 1<<20 {
		t.Errorf("it takes %d bytes", used)
	}
	r.remove("huge")
	r.revert("huge", id)
	buf := make([]byte, 20)
	if f, err = os.Open(r.path("huge")); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, _ := f.ReadAt(buf, at)
	info, err := f.Stat()
	if err != nil || info.Size() != size || !bytes.HasPrefix(buf[:n], []byte("in the middle\x00")) {
		t.Errorf("%q, %d bytes, %v", buf[:n], info.Size(), err)
	}
	var st unix.Stat_t
	if err := unix.Stat(r.path("huge"), &st); err != nil || st.Blocks > 4096 {
		t.Errorf("it takes %d blocks, %v", st.Blocks, err)
	}
}

func TestHolesAndZerosAreTheSameContent(t *testing.T) {
	r := newRig(t)
	const size = 3 << 20
	text := make([]byte, size)
	copy(text[1<<20:], "middle")
	r.write("f", string(text))
	id := r.manual("one")
	r.remove("f")
	f, err := os.OpenFile(r.path("f"), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("middle"), 1<<20); err != nil {
		t.Fatal(err)
	}
	_, err = r.s.Revert(context.Background(), "f", id)
	wantFault(t, err, fault.Conflict, "current already")
	if _, err := f.WriteAt([]byte("m"), 2<<20); err != nil {
		t.Fatal(err)
	}
	r.revert("f", id)
}

func TestManyAndDeepDirectoriesAndLongPathsComeBack(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Log = nil })
	fd, err := unix.Open(r.opts.Workspace, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("n", 120)
	for range 60 { // longer than one path may be
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	if err := unix.Symlinkat("target", fd, "link"); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	first := r.take(api.OriginManual, "one")
	if first.FilesCount != 1 {
		t.Fatalf("it answers %+v", first)
	}
	ws, err := os.Open(r.opts.Workspace)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if err := removeTree(int(ws.Fd()), name); err != nil {
		t.Fatal(err)
	}
	r.revert("", first.Checkpoint)
	if c := r.take(api.OriginManual, "two"); c.Hash != first.Hash {
		t.Errorf("%+v is not %+v", c, first)
	}
	if err := removeTree(int(ws.Fd()), name); err != nil {
		t.Fatal(err) // so that the test's directory can be removed
	}
}

func TestAWorkspaceThatWasRemovedIsAnErrorAndNoEmptySnapshot(t *testing.T) {
	r := newRig(t)
	r.write("f", "f")
	r.take(api.OriginAuto, "")
	if err := os.RemoveAll(r.opts.Workspace); err != nil {
		t.Fatal(err)
	}
	_, err := r.s.Create(context.Background(), api.OriginAuto, "")
	wantFault(t, err, fault.Unavailable, "was removed")
	if n := len(r.list().Snapshots); n != 1 {
		t.Errorf("%d snapshots", n)
	}
}

func TestNamesThatTakeTooMuchMemoryAreRefused(t *testing.T) {
	r := newRig(t, func(o *Options) { o.weight = 1000 })
	for i := range 4 {
		r.write(strings.Repeat("n", 250)+string(rune('0'+i)), "")
	}
	_, err := r.s.Create(context.Background(), api.OriginAuto, "")
	wantFault(t, err, fault.LimitReached, "too much space")
}
