package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"capsem/core/api"
)

// Snapshots lists the snapshots of a VM's workspace.
func (c *Client) Snapshots(ctx context.Context, id string) (api.SnapshotsReply, error) {
	return call[api.SnapshotsReply](ctx, c, http.MethodGet, escape("snapshots", id), nil)
}

// CreateSnapshot makes one.
func (c *Client) CreateSnapshot(ctx context.Context, id, name string) (api.SnapshotCreated, error) {
	return call[api.SnapshotCreated](ctx, c, http.MethodPost, escape("snapshots", id), api.SnapshotCreateRequest{Name: name})
}

// SnapshotChanges says what has changed since.
func (c *Client) SnapshotChanges(ctx context.Context, id string) (api.WorkspaceChangesReply, error) {
	return call[api.WorkspaceChangesReply](ctx, c, http.MethodGet, escape("snapshots", id, "changes"), nil)
}

// SnapshotDiff says what differs between two snapshots; to may be empty, which is now, and path, which is all.
func (c *Client) SnapshotDiff(ctx context.Context, id, from, to, path string) (api.SnapshotDiffReply, error) {
	query := url.Values{"from": {from}, "to": {to}, "path": {path}}
	return call[api.SnapshotDiffReply](ctx, c, http.MethodGet, escape("snapshots", id, "diff")+"?"+query.Encode(), nil)
}

// RevertSnapshot puts a path back.
func (c *Client) RevertSnapshot(ctx context.Context, id string, req api.SnapshotRevertRequest) (api.SnapshotReverted, error) {
	return call[api.SnapshotReverted](ctx, c, http.MethodPost, escape("snapshots", id, "revert"), req)
}

// SnapshotHistory is a path in all snapshots.
func (c *Client) SnapshotHistory(ctx context.Context, id, path string) (api.SnapshotHistory, error) {
	return call[api.SnapshotHistory](ctx, c, http.MethodGet, escape("snapshots", id, "history")+"?"+url.Values{"path": {path}}.Encode(), nil)
}

// CompactSnapshots makes one of several.
func (c *Client) CompactSnapshots(ctx context.Context, id string, req api.SnapshotCompactRequest) (api.SnapshotCompacted, error) {
	return call[api.SnapshotCompacted](ctx, c, http.MethodPost, escape("snapshots", id, "compact"), req)
}

// DeleteSnapshot removes one.
func (c *Client) DeleteSnapshot(ctx context.Context, id, checkpoint string) error {
	_, err := call[api.Success](ctx, c, http.MethodDelete, escape("snapshots", id, checkpoint), nil)
	return err
}

// SnapshotFile is a file of a snapshot. The caller closes it.
func (c *Client) SnapshotFile(ctx context.Context, id, checkpoint, path string) (io.ReadCloser, error) {
	return c.body(ctx, http.MethodGet, escape("snapshots", id, checkpoint, "content")+"?"+url.Values{"path": {path}}.Encode(), nil)
}
