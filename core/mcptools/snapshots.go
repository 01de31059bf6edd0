package mcptools

import (
	"context"

	"capsem/core/api"
)

type snapshotCreateParams struct {
	ID   string `json:"id" jsonschema:"the VM's name or id"`
	Name string `json:"name,omitempty" jsonschema:"what it is, in letters, digits, - and _"`
}

type snapshotDiffParams struct {
	ID   string `json:"id" jsonschema:"the VM's name or id"`
	From string `json:"from" jsonschema:"the older snapshot"`
	To   string `json:"to,omitempty" jsonschema:"the newer one; now otherwise"`
	Path string `json:"path,omitempty" jsonschema:"only this file or directory"`
}

type snapshotPathParams struct {
	ID   string `json:"id" jsonschema:"the VM's name or id"`
	Path string `json:"path" jsonschema:"the file or directory, beneath /root"`
}

type snapshotRevertParams struct {
	ID         string `json:"id" jsonschema:"the VM's name or id"`
	Path       string `json:"path,omitempty" jsonschema:"the file or directory, beneath /root; everything otherwise"`
	Checkpoint string `json:"checkpoint,omitempty" jsonschema:"the snapshot; the newest that differs otherwise"`
}

type snapshotName struct {
	ID         string `json:"id" jsonschema:"the VM's name or id"`
	Checkpoint string `json:"checkpoint" jsonschema:"the snapshot"`
}

type snapshotCompactParams struct {
	ID          string   `json:"id" jsonschema:"the VM's name or id"`
	Checkpoints []string `json:"checkpoints" jsonschema:"the snapshots to make one of"`
	Name        string   `json:"name,omitempty" jsonschema:"what it is, in letters, digits, - and _"`
}

// addSnapshots adds the tools about copies of a workspace.
func (s *Server) addSnapshots() {
	add(s, tool{name: "capsem_snapshot_list", title: "List snapshots", does: reads, about: "Lists the snapshots of a VM's workspace (/root) and what changed in each."},
		func(ctx context.Context, c *call, in vmName) (api.SnapshotsReply, error) {
			return c.svc.Snapshots(ctx, in.ID)
		})
	add(s, tool{name: "capsem_snapshot_create", title: "Make a snapshot", does: adds, about: "Copies a VM's workspace (/root), so that files can be put back."},
		func(ctx context.Context, c *call, in snapshotCreateParams) (api.SnapshotCreated, error) {
			return c.svc.CreateSnapshot(ctx, in.ID, in.Name)
		})
	add(s, tool{name: "capsem_snapshot_changes", title: "Changed files", does: reads, about: "Says which files of a workspace differ from its snapshots."},
		func(ctx context.Context, c *call, in vmName) (api.WorkspaceChangesReply, error) {
			return c.svc.SnapshotChanges(ctx, in.ID)
		})
	add(s, tool{name: "capsem_snapshot_diff", title: "Compare snapshots", does: reads, about: "Shows what differs between two snapshots, or one and now, as unified diffs."},
		func(ctx context.Context, c *call, in snapshotDiffParams) (api.SnapshotDiffReply, error) {
			return c.svc.SnapshotDiff(ctx, in.ID, in.From, in.To, in.Path)
		})
	add(s, tool{name: "capsem_snapshot_history", title: "History of a file", does: reads, about: "Lists the versions of a file in all snapshots."},
		func(ctx context.Context, c *call, in snapshotPathParams) (api.SnapshotHistory, error) {
			return c.svc.SnapshotHistory(ctx, in.ID, in.Path)
		})
	add(s, tool{
		name: "capsem_snapshot_revert", title: "Put files back", does: changes,
		about: "Puts a file, a directory or the whole workspace back to a snapshot. What it replaces is kept: revert to undo takes it back.",
	}, func(ctx context.Context, c *call, in snapshotRevertParams) (api.SnapshotReverted, error) {
		return meanwhile(ctx, c, "putting files back", nil, func() (api.SnapshotReverted, error) {
			return c.svc.RevertSnapshot(ctx, in.ID, api.SnapshotRevertRequest{Path: in.Path, Checkpoint: in.Checkpoint})
		})
	})
	add(s, tool{name: "capsem_snapshot_delete", title: "Delete a snapshot", does: destroys, about: "Removes a snapshot."},
		func(ctx context.Context, c *call, in snapshotName) (done, error) {
			return done{true}, c.svc.DeleteSnapshot(ctx, in.ID, in.Checkpoint)
		})
	add(s, tool{name: "capsem_snapshot_compact", title: "Merge snapshots", does: destroys, about: "Makes one snapshot of several, the newest version of each file."},
		func(ctx context.Context, c *call, in snapshotCompactParams) (api.SnapshotCompacted, error) {
			return c.svc.CompactSnapshots(ctx, in.ID, api.SnapshotCompactRequest{Checkpoints: in.Checkpoints, Name: in.Name})
		})
}
