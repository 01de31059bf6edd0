package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"

	"capsem/core/api"
)

// filesScript times file operations in a directory of the guest.
//
//go:embed files.py
var filesScript string

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
			if err := b.timeFiles(ctx, reply.ID, dir, into); err != nil {
				return err
			}
		}
	}
	const baseline = "the VM's own disk (virtio-blk, ext4)"
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
		line := newRow(r.name, r.unit, shared[r.key]).against(baseline, disk[r.key])
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

func (b *bench) timeFiles(ctx context.Context, id, dir string, into map[string][]float64) error {
	var got api.ExecReply
	req := api.ExecRequest{Argv: []string{"python3", "-c", filesScript, dir}, TimeoutSecs: 300}
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
