package ledger

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsem/core/fault"
)

func TestFullDiskIsSurvived(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("cannot mount a small disk here: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	key := testKey(t)
	path := filepath.Join(dir, DBFile)
	o := testOptions(t, key)
	o.Queue, o.Batch, o.Patience, o.SignEvery = 64, 16, time.Millisecond, 5*time.Millisecond
	w := open(t, path, o)
	// Something else takes most of the disk.
	ballast := filepath.Join(dir, "ballast")
	check(t, os.WriteFile(ballast, make([]byte, 2500<<10), 0o600))
	text := strings.Repeat("x", 1000)
	deadline := time.After(20 * time.Second)
	for w.Err() == nil {
		w.Record(Lifecycle{Event: "fill", Detail: text})
		select {
		case <-deadline:
			t.Fatalf("the disk never became full: %+v", w.Counters())
		default:
		}
	}
	for range 500 { // and it stays full for a while
		w.Record(FileEvent{Path: text})
	}
	var explained *fault.Error
	if err := w.Err(); !errors.As(err, &explained) || explained.Code != fault.NoSpace {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.Flush(ctx); !errors.As(err, &explained) {
		t.Fatalf("Flush does not say why: %v", err)
	}
	check(t, os.Remove(ballast))
	check(t, w.Flush(t.Context()))
	if w.Err() != nil {
		t.Fatal(w.Err())
	}
	c := w.Counters()
	closeWriter(t, w)
	r := verify(t, path, key)
	if !r.OK() || c.Lost == 0 || r.Lost != int64(c.Lost) || c.Written != c.Recorded {
		t.Fatalf("%+v, %+v", r, c)
	}
}
