package atomicfile

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"capsem/core/fault"
)

const (
	victimPath = "CAPSEM_TEST_VICTIM"
	victimStep = "CAPSEM_TEST_STEP"
)

// TestMain lets this binary be a writer that is killed before a chosen step.
func TestMain(m *testing.M) {
	path := os.Getenv(victimPath)
	if path == "" {
		os.Exit(m.Run())
	}
	die, err := strconv.Atoi(os.Getenv(victimStep))
	if err != nil {
		os.Exit(3)
	}
	step := 0
	err = write(path, newContent(), 0o600, func(string) {
		if step == die {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		step++
	})
	if err != nil {
		os.Exit(2)
	}
	os.Exit(0)
}

func newContent() []byte { return bytes.Repeat([]byte("new "), 5000) }

func TestAWriterKilledAtAnyStepLeavesTheOldOrTheNewFile(t *testing.T) {
	old := []byte("old content")
	steps := 0
	for done := false; !done; steps++ {
		dir := t.TempDir()
		path := filepath.Join(dir, "state.json")
		if err := Write(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = []string{victimPath + "=" + path, victimStep + "=" + strconv.Itoa(steps)}
		err := cmd.Run()
		done = err == nil
		if code := cmd.ProcessState.ExitCode(); !done && code != -1 {
			t.Fatalf("step %d: the writer was not killed but ended with %d", steps, code)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, old) && !bytes.Equal(got, newContent()) {
			t.Errorf("killed at step %d the file holds %d bytes that are neither old nor new", steps, len(got))
		}
		if err := Sweep(dir); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("killed at step %d and swept, %d files are there (%v)", steps, len(entries), err)
		}
	}
	if steps < 7 {
		t.Errorf("only %d steps were tried", steps)
	}
}

func TestAFullDiskLeavesTheOldFileAndSaysSo(t *testing.T) {
	// /dev/full cannot hold files; a file size limit is what an ordinary user can have. It is not ENOSPC, so the words
	// are tested apart.
	if err := explain("x", syscall.ENOSPC); !fault.Is(err, fault.NoSpace) {
		t.Errorf("a full disk is reported as %v", err)
	}
	if os.Geteuid() != 0 {
		return // only root can mount a small disk
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Logf("no small disk can be mounted here: %v", err)
		return
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	path := filepath.Join(dir, "state.json")
	if err := Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, make([]byte, 1<<20), 0o600); !fault.Is(err, fault.NoSpace) {
		t.Errorf("a full disk is reported as %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("the old file is %q (%v)", got, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files are left (%v)", len(entries), err)
	}
}

func TestModeIsSetWhateverTheUmask(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, mode := range []os.FileMode{0o600, 0o644} {
		if err := Write(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode is %v, want %v (%v)", info.Mode(), mode, err)
		}
	}
}
