package main

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"

	"capsem/core/api"
)

// filesScript times file operations in a directory of the guest.
//
//go:embed files.py
var filesScript string

// treesScript times what programs do to trees of files.
//
//go:embed trees.py
var treesScript string

// ownDisk is what the workspace is held against.
const ownDisk = "the VM's own disk (virtio-blk, ext4)"

// treeFiles is how many files a tree has; a machine that is slow or busy may want fewer.
var treeFiles = cmp.Or(wholeNumber(os.Getenv("CAPSEM_BENCH_FILES")), 10_000)

// workspaceRounds is how often each directory is timed, one after the other in turn.
const workspaceRounds = 3

// workspace times the shared workspace against the same VM's own disk.
func (b *bench) workspace(ctx context.Context) error {
	if err := b.serve(ctx); err != nil {
		return err
	}
	var reply api.ProvisionReply
	if err := b.api.call(ctx, http.MethodPost, "/provision", api.ProvisionRequest{}, &reply); err != nil {
		return err
	}
	defer b.delete(ctx, reply.ID)
	shared, disk := map[string][]float64{}, map[string][]float64{}
	for range workspaceRounds {
		for dir, into := range map[string]map[string][]float64{"/root": shared, "/var/tmp": disk} {
			if err := b.timeScript(ctx, reply.ID, filesScript, dir, into); err != nil {
				return err
			}
		}
	}
	for _, r := range []struct{ key, name, unit string }{
		{"write", "workspace: sequential write and fsync", "MB/s"},
		{"read", "workspace: sequential read", "MB/s"},
		{"reread", "workspace: read again, cached", "MB/s"},
		{"random_write", "workspace: 4 KB at random, each write", "ms"},
		{"random_read", "workspace: 4 KB at random, each read", "ms"},
		{"create", "workspace: each small file made", "ms"},
		{"stat", "workspace: each stat", "ms"},
		{"list", "workspace: list of 1000 files", "ms"},
		{"unlink", "workspace: each file removed", "ms"},
	} {
		line := newRow(r.name, r.unit, shared[r.key]).against(ownDisk, disk[r.key])
		switch r.key {
		case "create":
			line = line.held(AtMost, 2)
		case "reread":
			line = line.held(RatioAtLeast, 0.9)
		}
		b.add(line)
	}
	return nil
}

// trees times what programs do to ten thousand files, in the shared workspace and on the same VM's own disk.
func (b *bench) trees(ctx context.Context) error {
	if err := b.serve(ctx); err != nil {
		return err
	}
	var reply api.ProvisionReply
	if err := b.api.call(ctx, http.MethodPost, "/provision", api.ProvisionRequest{}, &reply); err != nil {
		return err
	}
	defer b.delete(ctx, reply.ID)
	shared, disk := map[string][]float64{}, map[string][]float64{}
	for dir, into := range map[string]map[string][]float64{"/root": shared, "/var/tmp": disk} {
		if err := b.timeScript(ctx, reply.ID, treesScript, dir, into); err != nil {
			return err
		}
	}
	for _, r := range []struct {
		key, name string
		limit     float64
	}{
		{"create", "each small file made", 2},
		{"stat", "each stat", 0},
		{"git_add", "git add, each file", 0},
		{"git_status", "git status", 0},
		{"git_status_again", "git status again", 0},
		{"git_clone", "git clone, each file", 0},
		{"unlink", "each file removed", 0},
		{"npm_ci", "npm ci, each file", 2},
		{"c_build", "C build, each file", 0},
	} {
		if len(shared[r.key]) == 0 {
			continue // the image has no program for it
		}
		line := newRow(fmt.Sprintf("workspace, %d files: %s", treeFiles, r.name), "ms", shared[r.key]).against(ownDisk, disk[r.key])
		if r.limit > 0 {
			line = line.held(AtMost, r.limit)
		}
		b.add(line)
	}
	return nil
}

// timeScript runs a script in a directory of the guest and adds the times that it prints.
func (b *bench) timeScript(ctx context.Context, id, script, dir string, into map[string][]float64) error {
	var got api.ExecReply
	req := api.ExecRequest{Argv: []string{"python3", "-c", script, dir, strconv.Itoa(treeFiles)}, TimeoutSecs: 1800}
	if err := b.api.call(ctx, http.MethodPost, "/exec/"+id, req, &got); err != nil {
		return err
	}
	times := map[string]float64{}
	if err := json.Unmarshal([]byte(got.Stdout), &times); err != nil {
		return fmt.Errorf("time files in %s: exit %d: %s", dir, got.ExitCode, got.Stderr)
	}
	for key, v := range times {
		into[key] = append(into[key], v)
	}
	return nil
}

// wholeNumber is 0 for what is none.
func wholeNumber(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}
