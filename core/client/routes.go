package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"capsem/core/api"
	"capsem/core/proto"
)

// Version asks which service runs.
func (c *Client) Version(ctx context.Context) (api.VersionReply, error) {
	return call[api.VersionReply](ctx, c, http.MethodGet, "/version", nil)
}

// Status is the service's own state.
func (c *Client) Status(ctx context.Context) (api.ServiceStatus, error) {
	return call[api.ServiceStatus](ctx, c, http.MethodGet, "/status", nil)
}

// Provision makes a VM and starts it.
func (c *Client) Provision(ctx context.Context, req api.ProvisionRequest) (api.ProvisionReply, error) {
	return call[api.ProvisionReply](ctx, c, http.MethodPost, "/provision", req)
}

// List is every VM.
func (c *Client) List(ctx context.Context) (api.ListReply, error) {
	return call[api.ListReply](ctx, c, http.MethodGet, "/list", nil)
}

// Info describes one VM.
func (c *Client) Info(ctx context.Context, id string) (api.SandboxInfo, error) {
	return call[api.SandboxInfo](ctx, c, http.MethodGet, escape("info", id), nil)
}

// Logs is the logs of one VM; tail is a number of lines, 0 for all.
func (c *Client) Logs(ctx context.Context, id string, tail int) (api.LogsReply, error) {
	return call[api.LogsReply](ctx, c, http.MethodGet, escape("logs", id)+"?tail="+strconv.Itoa(tail), nil)
}

// FollowLogs is the logs as they grow, until the reader is closed or ctx ends.
func (c *Client) FollowLogs(ctx context.Context, id string, tail int) (io.ReadCloser, error) {
	return c.body(ctx, http.MethodGet, escape("logs", id)+"?follow=1&tail="+strconv.Itoa(tail), nil)
}

// ServiceLogs is the end of the service's own log; the caller closes it.
func (c *Client) ServiceLogs(ctx context.Context) (io.ReadCloser, error) {
	return c.body(ctx, http.MethodGet, "/service-logs", nil)
}

// body returns the body of an answer that is no JSON.
func (c *Client) body(ctx context.Context, method, path string, in io.Reader) (io.ReadCloser, error) {
	req, err := request(ctx, method, path, in)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Exec runs a command and returns its output, or starts it when the request says Detach.
func (c *Client) Exec(ctx context.Context, id string, req api.ExecRequest) (api.ExecReply, error) {
	return call[api.ExecReply](ctx, c, http.MethodPost, escape("exec", id), req)
}

// Jobs lists the jobs of a VM, newest first.
func (c *Client) Jobs(ctx context.Context, id string) (api.JobsReply, error) {
	return call[api.JobsReply](ctx, c, http.MethodGet, escape("jobs", id), nil)
}

// Job is one job; with wait the answer comes when it has ended.
func (c *Client) Job(ctx context.Context, id, job string, wait bool) (proto.Job, error) {
	path := escape("jobs", id, job)
	if wait {
		path += "?wait=1"
	}
	return call[proto.Job](ctx, c, http.MethodGet, path, nil)
}

// CancelJob ends a job's processes.
func (c *Client) CancelJob(ctx context.Context, id, job string) error {
	_, err := call[api.Success](ctx, c, http.MethodDelete, escape("jobs", id, job), nil)
	return err
}

// Terminal tells where the worker of a VM listens.
func (c *Client) Terminal(ctx context.Context, id string) (api.TerminalReply, error) {
	return call[api.TerminalReply](ctx, c, http.MethodPost, escape("terminal", id), nil)
}

// Stop powers a VM off.
func (c *Client) Stop(ctx context.Context, id string) (api.StopReply, error) {
	return call[api.StopReply](ctx, c, http.MethodPost, escape("stop", id), nil)
}

// Restart stops a named VM and starts it again.
func (c *Client) Restart(ctx context.Context, id string) (api.ProvisionReply, error) {
	return call[api.ProvisionReply](ctx, c, http.MethodPost, escape("restart", id), nil)
}

// Delete destroys a VM and its files.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := call[api.Success](ctx, c, http.MethodDelete, escape("delete", id), nil)
	return err
}

// Resume starts a named VM unless it runs.
func (c *Client) Resume(ctx context.Context, name string) (api.ProvisionReply, error) {
	return call[api.ProvisionReply](ctx, c, http.MethodPost, escape("resume", name), nil)
}

// ResumeCold is Resume, and gives up what was in the memory of a suspended VM.
func (c *Client) ResumeCold(ctx context.Context, name string) (api.ProvisionReply, error) {
	return call[api.ProvisionReply](ctx, c, http.MethodPost, escape("resume", name)+"?cold=1", nil)
}

// Suspend saves a named VM's memory and ends it.
func (c *Client) Suspend(ctx context.Context, id string) error {
	_, err := call[api.Success](ctx, c, http.MethodPost, escape("suspend", id), nil)
	return err
}

// Persist gives a temporary VM a name.
func (c *Client) Persist(ctx context.Context, id, name string) error {
	_, err := call[api.Success](ctx, c, http.MethodPost, escape("persist", id), api.PersistRequest{Name: name})
	return err
}

// Purge destroys the temporary VMs, and the named ones too when all.
func (c *Client) Purge(ctx context.Context, all bool) (api.PurgeReply, error) {
	return call[api.PurgeReply](ctx, c, http.MethodPost, "/purge", api.PurgeRequest{All: all})
}

// Fork makes an image of a VM.
func (c *Client) Fork(ctx context.Context, id string, req api.ForkRequest) (api.Image, error) {
	return call[api.Image](ctx, c, http.MethodPost, escape("fork", id), req)
}

// Checkpoint keeps the whole state of a VM.
func (c *Client) Checkpoint(ctx context.Context, id string, req api.CheckpointRequest) (api.Checkpoint, error) {
	return call[api.Checkpoint](ctx, c, http.MethodPost, escape("checkpoints", id), req)
}

// Checkpoints lists the checkpoints of a VM.
func (c *Client) Checkpoints(ctx context.Context, id string) (api.CheckpointsReply, error) {
	return call[api.CheckpointsReply](ctx, c, http.MethodGet, escape("checkpoints", id), nil)
}

// DeleteCheckpoint removes a checkpoint of a VM.
func (c *Client) DeleteCheckpoint(ctx context.Context, id, name string) error {
	_, err := call[api.Success](ctx, c, http.MethodDelete, escape("checkpoints", id, name), nil)
	return err
}

// Rewind puts a VM back to a checkpoint.
func (c *Client) Rewind(ctx context.Context, id, name string) (api.ProvisionReply, error) {
	return call[api.ProvisionReply](ctx, c, http.MethodPost, escape("rewind", id), api.RewindRequest{Name: name})
}

// Images lists the images.
func (c *Client) Images(ctx context.Context) (api.ImagesReply, error) {
	return call[api.ImagesReply](ctx, c, http.MethodGet, "/images", nil)
}

// Image is one image.
func (c *Client) Image(ctx context.Context, name string) (api.Image, error) {
	return call[api.Image](ctx, c, http.MethodGet, escape("images", name), nil)
}

// ExportImage is an image as one archive; the caller closes it.
func (c *Client) ExportImage(ctx context.Context, name string) (io.ReadCloser, error) {
	return c.body(ctx, http.MethodGet, escape("images", name)+"/archive", nil)
}

// ImportImage makes an image of an archive.
func (c *Client) ImportImage(ctx context.Context, name string, archive io.Reader) (api.Image, error) {
	req, err := request(ctx, http.MethodPost, escape("images", name)+"/archive", io.NopCloser(archive))
	if err != nil {
		return api.Image{}, err
	}
	return answer[api.Image](c, req)
}

// DeleteImage removes an image.
func (c *Client) DeleteImage(ctx context.Context, name string) error {
	_, err := call[api.Success](ctx, c, http.MethodDelete, escape("images", name), nil)
	return err
}

// Templates lists what new VMs may start from.
func (c *Client) Templates(ctx context.Context) (api.TemplatesReply, error) {
	return call[api.TemplatesReply](ctx, c, http.MethodGet, "/templates", nil)
}

// RebuildTemplate makes the template for VMs of these sizes anew, and waits for it.
func (c *Client) RebuildTemplate(ctx context.Context, req api.RebuildTemplateRequest) (api.TemplatesReply, error) {
	return call[api.TemplatesReply](ctx, c, http.MethodPost, "/templates/rebuild", req)
}

// PruneTemplates removes all templates.
func (c *Client) PruneTemplates(ctx context.Context) (api.PruneTemplatesReply, error) {
	return call[api.PruneTemplatesReply](ctx, c, http.MethodPost, "/templates/prune", nil)
}

// Shutdown ends the service; VMs keep running.
func (c *Client) Shutdown(ctx context.Context) (api.ShutdownReply, error) {
	return call[api.ShutdownReply](ctx, c, http.MethodPost, "/shutdown", nil)
}

func filePath(id, what, path string, more url.Values) string {
	if more == nil {
		more = url.Values{}
	}
	more.Set("path", path)
	return escape("files", id) + what + "?" + more.Encode()
}

// ListFiles lists a directory of the guest, depth levels down.
func (c *Client) ListFiles(ctx context.Context, id, path string, depth int) (api.FilesReply, error) {
	return call[api.FilesReply](ctx, c, http.MethodGet, filePath(id, "", path, url.Values{"depth": {strconv.Itoa(depth)}}), nil)
}

// StatFile describes a file of the guest.
func (c *Client) StatFile(ctx context.Context, id, path string) (proto.FileInfo, error) {
	return call[proto.FileInfo](ctx, c, http.MethodGet, filePath(id, "/stat", path, nil), nil)
}

// ReadFile is the content of a file of the guest. A failure in the middle shows as an error of Read, never as its end.
func (c *Client) ReadFile(ctx context.Context, id, path string) (io.ReadCloser, error) {
	return c.body(ctx, http.MethodGet, filePath(id, "/content", path, nil), nil)
}

// WriteFile replaces a file of the guest; mode 0 means 0644.
func (c *Client) WriteFile(ctx context.Context, id, path string, mode uint32, content io.Reader) (api.FileReply, error) {
	query := url.Values{"mode": {strconv.FormatUint(uint64(mode), 8)}}
	// Wrapped, so that the length is unknown and the content is sent chunked, whatever the reader is.
	req, err := request(ctx, http.MethodPost, filePath(id, "/content", path, query), io.NopCloser(content))
	if err != nil {
		return api.FileReply{}, err
	}
	return answer[api.FileReply](c, req)
}

// DeleteFile removes a file of the guest, or with recursive a directory.
func (c *Client) DeleteFile(ctx context.Context, id, path string, recursive bool) error {
	query := url.Values{}
	if recursive {
		query.Set("recursive", "1")
	}
	_, err := call[api.FileReply](ctx, c, http.MethodDelete, filePath(id, "/content", path, query), nil)
	return err
}

// Mkdir makes a directory of the guest and its parents.
func (c *Client) Mkdir(ctx context.Context, id, path string, mode uint32) (api.FileReply, error) {
	query := url.Values{"mode": {strconv.FormatUint(uint64(mode), 8)}}
	return call[api.FileReply](ctx, c, http.MethodPost, filePath(id, "/mkdir", path, query), nil)
}
