package guard

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

const holderPath = "CAPSEM_TEST_HOLD"

// TestMain lets this binary be a process that takes a lock and keeps it until it is killed.
func TestMain(m *testing.M) {
	path := os.Getenv(holderPath)
	if path == "" {
		os.Exit(m.Run())
	}
	if _, err := Acquire(path); err != nil {
		os.Exit(1)
	}
	os.Stdout.WriteString("held\n")
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

func TestALockLastsAsLongAsItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{holderPath + "=" + path}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("the other process says %q (%v)", line, err)
	}
	if _, err := Acquire(path); !errors.Is(err, ErrHeld) {
		t.Errorf("taking a held lock gives %v", err)
	}
	if pid, held, err := Holder(path); err != nil || !held || pid != cmd.Process.Pid {
		t.Errorf("holder is %d %v (%v), want %d", pid, held, err, cmd.Process.Pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if _, held, err := Holder(path); err != nil || held {
		t.Errorf("after a kill the lock is held: %v (%v)", held, err)
	}
	l, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	moved := path + "2"
	if err := l.Rename(moved); err != nil {
		t.Fatal(err)
	}
	if _, held, _ := Holder(moved); !held {
		t.Error("a renamed lock is no longer held")
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(moved); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a released lock leaves its file: %v", err)
	}
}

func TestASymlinkIsNoLock(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire(filepath.Join(dir, "l")); err == nil {
		t.Error("a symlink was locked")
	}
}

func TestWhoeverOnlyLooksDoesNotKeepOthersFromTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _, _ = Holder(path)
			}
		}
	})
	failed := 0
	for range 2000 {
		l, err := Acquire(path)
		if err != nil {
			failed++
			continue
		}
		if err := l.file.Close(); err != nil { // the file stays, as after a kill
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if failed > 0 {
		t.Errorf("%d of 2000 found the lock held while nobody had it", failed)
	}
}
