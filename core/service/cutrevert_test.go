package service_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"capsem/core/api"
	"capsem/core/image"
	"capsem/core/paths"
	"capsem/core/snapshot"
)

// cutRevert leaves a revert in the workspace of a VM that was cut off before it changed anything: f is "new", and should be "old".
func cutRevert(t *testing.T, vm paths.VM) {
	t.Helper()
	options := snapshot.Options{Workspace: vm.Workspace(), Dir: vm.Snapshots()}
	s, err := snapshot.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"old", "new"} {
		if err := os.WriteFile(filepath.Join(vm.Workspace(), "f"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Create(t.Context(), api.OriginManual, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	journal, err := cbor.Marshal(map[int]any{1: 1, 2: []byte{}, 3: 1, 4: 2, 5: [][]byte{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(vm.Snapshots(), "journal"), journal, 0o600); err != nil {
		t.Fatal(err)
	}
}

func textOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestARevertThatWasCutOffIsCompleteInAForkAndGoneAfterARewind(t *testing.T) {
	s, home := start(t)
	id := create(t, s, api.ProvisionRequest{Name: "vm"})
	if _, err := s.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	vm := home.Persistent(id)
	file := filepath.Join(vm.Workspace(), "f")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Checkpoint(t.Context(), id, api.CheckpointRequest{Name: "point"}); err != nil {
		t.Fatal(err)
	}
	cutRevert(t, vm)
	if _, err := s.Fork(t.Context(), id, api.ForkRequest{Image: "work"}); err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, filepath.Join(home.Images(), "work", "workspace", "f")); got != "old" {
		t.Errorf("the image has %q", got)
	}
	if err := os.RemoveAll(vm.Snapshots()); err != nil {
		t.Fatal(err)
	}
	cutRevert(t, vm)
	if _, err := s.Rewind(t.Context(), id, "point"); err != nil {
		t.Fatal(err)
	}
	store, err := snapshot.Open(t.Context(), snapshot.Options{Workspace: vm.Workspace(), Dir: vm.Snapshots()})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, file); got != "kept" {
		t.Errorf("after a rewind it has %q", got)
	}
}

func TestARewindThatWasNotFinishedIsCompleteInAFork(t *testing.T) {
	s, home := start(t)
	id := create(t, s, api.ProvisionRequest{Name: "vm"})
	if _, err := s.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	vm := home.Persistent(id)
	file := filepath.Join(vm.Workspace(), "f")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("then")
	if _, err := s.Checkpoint(t.Context(), id, api.CheckpointRequest{Name: "point"}); err != nil {
		t.Fatal(err)
	}
	write("now")
	point, err := image.Checkpoints(vm, id).Find("point")
	if err == nil {
		err = point.Stage(vm)
	}
	if err == nil {
		err = image.Commit(vm)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fork(context.Background(), id, api.ForkRequest{Image: "work"}); err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, filepath.Join(home.Images(), "work", "workspace", "f")); got != "then" {
		t.Errorf("the image has %q", got)
	}
}
