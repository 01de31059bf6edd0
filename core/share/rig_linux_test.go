package share_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	guest "capsem/core/guest/share"
	"capsem/core/share"
)

// rig is a real mount of this machine's kernel: guest relay, a socket pair, the server.
type rig struct {
	t *testing.T
	// host is the shared directory, guest where it is mounted.
	host, guest string
	config      share.Config
	mount       *guest.Mount

	mu     sync.Mutex
	server *share.Server
	// streams are the host's ends, to be broken.
	streams []net.Conn
	events  []share.Event
	serving sync.WaitGroup
	paused  bool
	// tap counts what the kernel asks of the host.
	tap *tap
}

// deadline is for what must happen soon, on a slow machine too.
const deadline = 20 * time.Second

func needMount(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("mounting takes /dev/fuse:", err)
	}
}

// guarded is how a copy of this program is told to be the guard of a mount.
const guarded = "CAPSEM_TEST_GUARD_MOUNT"

func TestMain(m *testing.M) {
	dir := os.Getenv(guarded)
	if dir == "" {
		os.Exit(m.Run())
	}
	over := make(chan struct{})
	go func() { defer close(over); _, _ = io.Copy(io.Discard, os.Stdin) }()
	select {
	case <-over:
	case <-time.After(2 * time.Minute):
		_ = unix.Unmount(dir, unix.MNT_FORCE)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
}

// guard ends a mount that hangs. This process could not: it both asks and answers, and not even a signal ends a program
// that waits for an answer.
func guard(t testing.TB, dir string) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), guarded+"="+dir)
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// newRig mounts a new directory; change may alter the configuration.
func newRig(t *testing.T, change func(*share.Config)) *rig {
	t.Helper()
	return startRig(t, t.TempDir(), change)
}

func startRig(t testing.TB, host string, change func(*share.Config)) *rig {
	t.Helper()
	needMount(t)
	r := &rig{host: host, guest: t.TempDir(), tap: &tap{}}
	if tt, ok := t.(*testing.T); ok {
		r.t = tt
	}
	r.config = share.Config{Root: host, Tag: "test", Log: testLog(t)}
	if change != nil {
		change(&r.config)
	}
	if r.config.Events == nil {
		r.config.Events = func(e share.Event) {
			r.mu.Lock()
			r.events = append(r.events, e)
			r.mu.Unlock()
		}
	}
	guard(t, r.guest)
	server, err := share.New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	r.server = server
	t.Cleanup(func() { r.stop(t) })
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	r.mount, err = guest.Start(ctx, guest.Options{Dir: r.guest, Dial: r.dial, ReadOnly: false, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// stop leaves no mount behind, whatever happened.
func (r *rig) stop(t testing.TB) {
	if r.mount != nil {
		_ = r.mount.Close()
	}
	_ = unix.Unmount(r.guest, unix.MNT_DETACH)
	r.mu.Lock()
	server := r.server
	r.mu.Unlock()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	r.serving.Wait()
}

func (r *rig) dial(context.Context) (io.ReadWriteCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused {
		return nil, errors.New("the host is away")
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	server := r.server
	r.streams = append(r.streams, theirs)
	r.serving.Go(func() { _ = server.Serve(context.Background(), theirs) })
	if r.tap != nil {
		return &tapped{ours, r.tap}, nil
	}
	return ours, nil
}

// breakStream ends the stream in use.
func (r *rig) breakStream() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.streams {
		_ = s.Close()
	}
	r.streams = nil
}

func (r *rig) current() *share.Server {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.server
}

func (r *rig) in(name ...string) string { return filepath.Join(append([]string{r.guest}, name...)...) }

// on names a file on the host. What the guest has written is there once the mount is settled.
func (r *rig) on(name ...string) string {
	r.settle()
	return filepath.Join(append([]string{r.host}, name...)...)
}

func (r *rig) settle() {
	if r.mount == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	r.mount.Settle(ctx)
}

func socketPair() (net.Conn, net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var out [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		out[i], err = net.FileConn(f)
		_ = f.Close()
		if err != nil {
			return nil, nil, err
		}
	}
	return out[0], out[1], nil
}

// soon asks again until it is true or the deadline passes.
func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(deadline)
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("not in time: ", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}
