package serial

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFindsThePortByName(t *testing.T) {
	root := t.TempDir()
	for node, name := range map[string]string{"vport1p1": "org.qemu.guest_agent.0", "vport2p3": "capsem.link", "vport2p4": ""} {
		dir := filepath.Join(root, "sys/class/virtio-ports", node)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if name != "" {
			if err := os.WriteFile(filepath.Join(dir, "name"), []byte(name+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if node, err := find(root, "capsem.link"); err != nil || node != filepath.Join(root, "dev/vport2p3") {
		t.Errorf("found %q, %v", node, err)
	}
	if _, err := find(root, "other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a port that is not there: %v", err)
	}
}

func TestWaitsForAPortThatIsAnnouncedLater(t *testing.T) {
	root := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := wait(ctx, root, "capsem.link"); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a port that never comes: %v", err)
	}
	go func() {
		dir := filepath.Join(root, "sys/class/virtio-ports/vport0p1")
		_ = os.MkdirAll(dir, 0o755)
		_ = os.WriteFile(filepath.Join(dir, "name"), []byte("capsem.link\n"), 0o644)
		_ = os.MkdirAll(filepath.Join(root, "dev"), 0o755)
		_ = os.WriteFile(filepath.Join(root, "dev/vport0p1"), nil, 0o644)
	}()
	if node, err := wait(t.Context(), root, "capsem.link"); err != nil || filepath.Base(node) != "vport0p1" {
		t.Errorf("found %q, %v", node, err)
	}
}

// A named pipe hangs up when its writer goes and comes back with the next, as the port does with its hosts.
func TestReadOutlivesItsWritersAndWaitsWithoutSpinning(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "port")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := openNode(fifo, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got := make(chan string)
	failed := make(chan error, 1)
	go func() {
		buf := make([]byte, 10)
		for {
			n, err := p.Read(buf)
			if err != nil {
				failed <- err
				return
			}
			got <- string(buf[:n])
		}
	}()
	for _, text := range []string{"one", "two", "three"} {
		w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if g := <-got; g != text {
			t.Errorf("read %q, want %q", g, text)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(50 * time.Millisecond) // long enough for a spinning reader to try thousands of times
	if n := p.attempts.Load(); n > 30 {
		t.Errorf("%d read calls for 3 messages", n)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
}

func TestDeadlinesInterruptAndPassAway(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "port")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := openNode(fifo, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	if err := p.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(p, make([]byte, 1)); err != nil {
		t.Errorf("Read: %v", err)
	}
}

func TestWhatCannotBePolledIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openNode(file, os.O_RDWR); !errors.Is(err, os.ErrNoDeadline) {
		t.Errorf("a plain file: %v", err)
	}
	if _, err := openNode(file+"-missing", os.O_RDWR); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing node: %v", err)
	}
}
