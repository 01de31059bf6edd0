package machine

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"testing"

	"capsem/core/fault"
	"capsem/core/proto"
	"capsem/core/share"
	"capsem/core/snapshot"
)

// fullWorkspace makes a workspace with a file a/f of random content.
func fullWorkspace(t *testing.T, dir string, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	_, err := rand.Read(data)
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, "workspace", "a"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "workspace", "a", "f"), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAGuestCannotFillTheDiskByReverts(t *testing.T) {
	const mb = 1 << 20
	dir := t.TempDir()
	workspace, data := filepath.Join(dir, "workspace"), fullWorkspace(t, dir, 5*mb)
	files, err := share.New(share.Config{Root: workspace, Quota: share.Quota{Bytes: 12 * mb}})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	store, err := snapshot.Open(t.Context(), snapshot.Options{Workspace: workspace, Dir: filepath.Join(dir, "snapshots")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	guest := snapshot.Guest{Prefix: guestPrefix, Room: files}
	do := func(req proto.SnapshotRequest) error {
		answer, err := store.DoGuest(context.Background(), &req, guest)
		if err != nil {
			return err
		}
		return answer(io.Discard)
	}
	if err := do(proto.SnapshotRequest{Op: proto.SnapshotCreate, Name: "guest-one"}); err != nil {
		t.Fatal(err)
	}
	again := func(to string) error { // takes what is there away and has it brought back
		if err := os.Rename(filepath.Join(workspace, "a"), filepath.Join(workspace, to)); err != nil {
			t.Fatal(err)
		}
		return do(proto.SnapshotRequest{Op: proto.SnapshotRevert, Path: []byte("a")})
	}
	if err := again("b"); err != nil {
		t.Fatal("there is room for two:", err)
	}
	before := files.Stats().Bytes
	if err := again("c"); !fault.Is(err, fault.NoSpace) {
		t.Error("there is no room for three:", err)
	}
	if now := files.Stats().Bytes; now != before || now < 10*mb {
		t.Errorf("%d bytes are counted, and %d after a revert that was refused", before, now)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "snapshots", "revert")); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
	owner := proto.SnapshotRequest{Op: proto.SnapshotRevert, Path: []byte("a")}
	if answer, err := store.Do(context.Background(), &owner); err != nil || answer(io.Discard) != nil {
		t.Error("the owner is refused:", err)
	}
	if back, err := os.ReadFile(filepath.Join(workspace, "a", "f")); err != nil || !bytes.Equal(back, data) {
		t.Error("the file is another", err)
	}
}
