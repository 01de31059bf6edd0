package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"capsem/core/api"
)

const (
	// snapshotRounds is how often each operation is timed; fewSnapshotFiles and manySnapshotFiles are the sizes of the workspace.
	snapshotRounds                      = 5
	fewSnapshotFiles, manySnapshotFiles = 10, 10_000
)

// snapshots times operations on the snapshots of a running VM by the host's API, with few files and with many.
func (b *bench) snapshots(ctx context.Context) error {
	if err := b.serve(ctx); err != nil {
		return err
	}
	for _, files := range []int{fewSnapshotFiles, manySnapshotFiles} {
		if err := b.snapshotsOf(ctx, files); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) snapshotsOf(ctx context.Context, files int) error {
	const name = "bench-snapshots"
	if err := b.api.call(ctx, http.MethodPost, "/provision", api.ProvisionRequest{Name: name}, nil); err != nil {
		return err
	}
	defer b.delete(ctx, name)
	var info api.SandboxInfo
	if err := b.api.call(ctx, http.MethodGet, "/info/"+name, nil, &info); err != nil {
		return err
	}
	file := func(i int) string {
		return filepath.Join(info.Dir, "workspace", fmt.Sprint("dir", i%100), fmt.Sprint("file", i))
	}
	for i := range files {
		if err := os.MkdirAll(filepath.Dir(file(i)), 0o755); err != nil {
			return fmt.Errorf("fill workspace: %w", err)
		}
		if err := os.WriteFile(file(i), fmt.Appendf(nil, "%d %01000d", i, i), 0o644); err != nil {
			return fmt.Errorf("fill workspace: %w", err)
		}
	}
	began := map[string][]float64{}
	timed := func(what, method, path string, in, out any) error {
		t, err := b.timed(ctx, method, path, in, out)
		began[what] = append(began[what], t)
		return err
	}
	var first api.SnapshotCreated
	if err := timed("first", http.MethodPost, "/snapshots/"+name, api.SnapshotCreateRequest{Name: "first"}, &first); err != nil {
		return err
	}
	for round := range snapshotRounds {
		if err := os.WriteFile(file(round), []byte("changed"), 0o644); err != nil {
			return fmt.Errorf("change workspace: %w", err)
		}
		for _, do := range []struct {
			what, method, path string
			in                 any
		}{
			{"changes", http.MethodGet, "/snapshots/" + name + "/changes", nil},
			{"create", http.MethodPost, "/snapshots/" + name, api.SnapshotCreateRequest{Name: fmt.Sprint("round", round)}},
			{"list", http.MethodGet, "/snapshots/" + name, nil},
			{"revert a file", http.MethodPost, "/snapshots/" + name + "/revert", api.SnapshotRevertRequest{Path: fmt.Sprintf("dir%d/file%d", round%100, round), Checkpoint: first.Checkpoint}},
		} {
			if err := timed(do.what, do.method, do.path, do.in, nil); err != nil {
				return err
			}
		}
	}
	b.addSnapshots(files, began)
	return nil
}

func (b *bench) addSnapshots(files int, began map[string][]float64) {
	for _, what := range []string{"first", "create", "list", "changes", "revert a file"} {
		line := newRow(fmt.Sprintf("%d files: snapshots, %s", files, what), "ms", began[what])
		if files == fewSnapshotFiles {
			line = line.held(AtMost, 50)
		}
		switch what {
		case "first":
			line = line.noted("Everything is copied.")
		case "create":
			line = line.noted("One file has changed.")
		}
		b.add(line)
	}
}
