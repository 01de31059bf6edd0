package safesocket

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"capsem/core/fault"
)

// home is a short directory: t.TempDir is named after the test.
func home(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ss")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestListenAndDialOnShortAndLongPaths(t *testing.T) {
	short := filepath.Join(home(t), "s.sock")
	deep := filepath.Join(home(t), strings.Repeat("long/", 60))
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{short, filepath.Join(deep, "s.sock")} {
		l, err := Listen(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err == nil {
				_, _ = io.WriteString(conn, "hello")
				_ = conn.Close()
			}
		}()
		conn, err := Dial(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
			t.Errorf("%d bytes of path: read %q (%v)", len(path), got, err)
		}
		if info, err := os.Lstat(Resolve(path)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket's mode is %v (%v)", info.Mode(), err)
		}
		if _, err := Listen(t.Context(), path); !errors.Is(err, ErrInUse) {
			t.Errorf("listening twice gives %v", err)
		}
		if err := errors.Join(conn.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
		again, err := Listen(t.Context(), path)
		if err != nil {
			t.Fatalf("a socket nobody answers on is not replaced: %v", err)
		}
		if err := errors.Join(again.Close(), Remove(path)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPreparedDirectoryForLongPathsIsRefused(t *testing.T) {
	dir := filepath.Join(home(t), "d")
	for name, prepare := range map[string]func() error{
		"open to others": func() error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755)) },
		"symlink":        func() error { return os.Symlink(home(t), dir) },
		"file":           func() error { return os.WriteFile(dir, nil, 0o600) },
	} {
		if err := prepare(); err != nil {
			t.Fatal(err)
		}
		if err := ownDir(dir); !fault.Is(err, fault.Forbidden) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(ownDir(dir), ownDir(dir)); err != nil {
		t.Errorf("our own: %v", err)
	}
}

func TestAFileInTheWayIsNotRemoved(t *testing.T) {
	path := filepath.Join(home(t), "s.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), path); !fault.Is(err, fault.Conflict) {
		t.Errorf("listening over a file gives %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "precious" {
		t.Errorf("the file is %q (%v)", got, err)
	}
}

func TestOnlyTheSameUserIsServed(t *testing.T) {
	path := filepath.Join(home(t), "s.sock")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if uid, err := PeerUID(conn); err != nil || uid != os.Geteuid() {
		t.Errorf("the peer is user %d (%v)", uid, err)
	}
	if conn, err := net.Dial("unix", l.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("the name of before the mode was set still answers")
	}
	if os.Geteuid() != 0 {
		return // to be another user takes root
	}
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	stranger := exec.CommandContext(t.Context(), "/usr/bin/perl", "-MIO::Socket::UNIX", "-e",
		"my $s = IO::Socket::UNIX->new(Peer => shift) or exit 7; sysread($s, my $b, 1) and exit 8; exit 0", path)
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	accepted := make(chan net.Conn, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	if out, err := stranger.CombinedOutput(); err != nil {
		t.Errorf("a stranger was not just closed: %v %s", err, out)
	}
	if err := (<-accepted).Close(); err != nil { // our own connection from above
		t.Fatal(err)
	}
	if len(accepted) != 0 {
		t.Error("a stranger's connection was accepted")
	}
}

func TestListenThatIsCutShortLeavesALiveSocketAlone(t *testing.T) {
	path := filepath.Join(home(t), "s.sock")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if second, err := Listen(ctx, path); err == nil {
		_ = second.Close()
		t.Error("a cancelled Listen took the place of a socket in use")
	}
	conn, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatalf("the socket is gone: %v", err)
	}
	_ = conn.Close()
}
