package service_test

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"capsem/core/api"
	"capsem/core/proto"
)

func TestAFileOfASnapshotIsNotReadIntoMemory(t *testing.T) {
	const size = 256 << 20
	s, home := start(t)
	id := create(t, s, api.ProvisionRequest{Name: "vm"})
	if _, err := s.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	huge := filepath.Join(home.Persistent(id).Workspace(), "huge")
	if err := os.WriteFile(huge, []byte("begin"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, size); err != nil {
		t.Fatal(err)
	}
	do := func(req proto.SnapshotRequest) io.ReadCloser {
		t.Helper()
		answer, err := s.Snapshots(t.Context(), id, &req)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	made := do(proto.SnapshotRequest{Op: proto.SnapshotCreate, Name: "one"})
	if text, err := io.ReadAll(made); err != nil || len(text) == 0 || made.Close() != nil {
		t.Fatal(string(text), err)
	}
	list := do(proto.SnapshotRequest{Op: proto.SnapshotList})
	if err := list.Close(); err != nil { // nobody reads it
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	file := do(proto.SnapshotRequest{Op: proto.SnapshotRead, Checkpoint: "cp-10", Path: []byte("huge")})
	n, err := io.Copy(io.Discard, file)
	if err != nil || n != size || file.Close() != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > size/4 {
		t.Errorf("reading it took %d MB of memory", took>>20)
	}
}
