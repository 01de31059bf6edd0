package localapi

import (
	"net/http"
	"slices"

	"capsem/core/api"
	"capsem/core/proto"
)

// route is one row of the API: how it is reached, what goes in and out, for the document too.
type route struct {
	method, path, summary string
	// query names the parameters of the URL's query.
	query []param
	// in and out are zero values of the bodies' types; nil means none. A string names a media type of raw bytes.
	in, out any
	// upgrade is the protocol that the route can be switched to.
	upgrade string
	run     func(w http.ResponseWriter, r *http.Request) error
}

// param is one parameter of a query.
type param struct {
	name, kind, about string
	required          bool
}

const (
	raw    = "application/octet-stream"
	plain  = "text/plain"
	ndjson = "application/x-ndjson"
)

func (s *Server) table() []route {
	return slices.Concat(s.vmRoutes(), s.imageRoutes(), s.snapshotRoutes(), s.templateRoutes(), s.recordRoutes(), s.secretRoutes(), s.mcpRoutes(), s.serviceRoutes())
}

func (s *Server) imageRoutes() []route {
	return []route{
		{method: "POST", path: "/fork/{id}", summary: "Make an image of a VM", in: api.ForkRequest{}, out: api.Image{}, run: s.fork},
		{
			method: "POST", path: "/checkpoints/{id}", summary: "Keep the whole state of a VM", in: api.CheckpointRequest{}, out: api.Checkpoint{},
			run: s.checkpoint,
		},
		{method: "GET", path: "/checkpoints/{id}", summary: "The checkpoints of a VM", out: api.CheckpointsReply{}, run: s.checkpoints},
		{method: "DELETE", path: "/checkpoints/{id}/{name}", summary: "Remove a checkpoint", out: api.Success{}, run: s.deleteCheckpoint},
		{method: "POST", path: "/rewind/{id}", summary: "Put a VM back to a checkpoint", in: api.RewindRequest{}, out: api.ProvisionReply{}, run: s.rewind},
		{method: "GET", path: "/images", summary: "Every image", out: api.ImagesReply{}, run: s.images},
		{method: "GET", path: "/images/{name}", summary: "One image", out: api.Image{}, run: s.image},
		{method: "GET", path: "/images/{name}/archive", summary: "An image as one archive, without its memory", out: raw, run: s.exportImage},
		{method: "POST", path: "/images/{name}/archive", summary: "Make an image of an archive", in: raw, out: api.Image{}, run: s.importImage},
		{method: "DELETE", path: "/images/{name}", summary: "Remove an image", out: api.Success{}, run: s.deleteImage},
	}
}

func (s *Server) templateRoutes() []route {
	return []route{
		{method: "GET", path: "/templates", summary: "What new VMs may start from", out: api.TemplatesReply{}, run: s.templates},
		{
			method: "POST", path: "/templates/rebuild", summary: "Make the template for VMs of these sizes anew", in: api.RebuildTemplateRequest{},
			out: api.TemplatesReply{}, run: s.rebuildTemplate,
		},
		{method: "POST", path: "/templates/prune", summary: "Remove all templates", out: api.PruneTemplatesReply{}, run: s.pruneTemplates},
	}
}

func (s *Server) serviceRoutes() []route {
	return []route{
		{method: "GET", path: "/version", summary: "Which service runs", out: api.VersionReply{}, run: s.version},
		{method: "GET", path: "/status", summary: "The service's own state", out: api.ServiceStatus{}, run: s.status},
		{method: "GET", path: "/openapi.json", summary: "This document", out: map[string]any{}, run: s.openAPI},
		{method: "GET", path: "/service-logs", summary: "The end of the service's log", out: plain, run: s.serviceLogs},
		{method: "POST", path: "/shutdown", summary: "End the service; VMs keep running", out: api.ShutdownReply{}, run: s.stopService},
	}
}

func (s *Server) vmRoutes() []route {
	path := param{"path", "string", "a path beneath /root, or an absolute one", true}
	mode := param{"mode", "string", "permission bits in octal", false}
	return []route{
		{method: "POST", path: "/provision", summary: "Make a VM and start it", in: api.ProvisionRequest{}, out: api.ProvisionReply{}, run: s.provision},
		{method: "GET", path: "/list", summary: "Every VM", out: api.ListReply{}, run: s.list},
		{method: "GET", path: "/info/{id}", summary: "One VM", out: api.SandboxInfo{}, run: s.info},
		{
			method: "GET", path: "/logs/{id}", summary: "The logs of a VM, also of one that failed and is gone; with follow as text, as they grow",
			query: []param{{"tail", "integer", "only the last lines of each; 0 for all", false}, {"follow", "boolean", "go on as they grow", false}},
			out:   api.LogsReply{}, run: s.logs,
		},
		{method: "POST", path: "/exec/{id}", summary: "Run a command and return its output", in: api.ExecRequest{}, out: api.ExecReply{}, run: s.exec},
		{
			method: "POST", path: "/exec/{id}/stream", summary: "Run a command as a stream of frames (Upgrade), or of JSON lines (Accept: " + ndjson + ")",
			in: api.ExecRequest{}, out: ndjson, upgrade: api.UpgradeStream, run: s.execStream,
		},
		{method: "GET", path: "/jobs/{id}", summary: "The jobs of a VM, newest first", out: api.JobsReply{}, run: s.jobs},
		{
			method: "GET", path: "/jobs/{id}/{job}", summary: "One job", out: proto.Job{}, run: s.job,
			query: []param{{"wait", "boolean", "answer when it has ended", false}},
		},
		{method: "DELETE", path: "/jobs/{id}/{job}", summary: "End a job's processes", out: api.Success{}, run: s.cancelJob},
		{method: "POST", path: "/read_file/{id}", summary: "Read a text file", in: api.FilePath{}, out: api.FileText{}, run: s.readText},
		{method: "POST", path: "/write_file/{id}", summary: "Write a text file", in: api.FileText{}, out: api.Success{}, run: s.writeText},
		{
			method: "GET", path: "/files/{id}", summary: "List files, directories first", out: api.FilesReply{}, run: s.listFiles,
			query: []param{{"path", "string", "a directory; /root when empty", false}, {"depth", "integer", "levels, 1-6", false}},
		},
		{method: "GET", path: "/files/{id}/content", summary: "Read a file of any size", query: []param{path}, out: raw, run: s.readFile},
		{
			method: "POST", path: "/files/{id}/content", summary: "Write a file of any size", query: []param{path, mode},
			in: raw, out: api.FileReply{}, run: s.writeFile,
		},
		{method: "GET", path: "/files/{id}/stat", summary: "Describe a file", query: []param{path}, out: proto.FileInfo{}, run: s.statFile},
		{
			method: "DELETE", path: "/files/{id}/content", summary: "Remove a file", out: api.FileReply{}, run: s.deleteFile,
			query: []param{path, {"recursive", "boolean", "a directory with what is in it", false}},
		},
		{method: "POST", path: "/files/{id}/mkdir", summary: "Make a directory and its parents", query: []param{path, mode}, out: api.FileReply{}, run: s.mkdir},
		{method: "POST", path: "/terminal/{id}", summary: "Where to attach a terminal", out: api.TerminalReply{}, run: s.terminal},
		{
			method: "POST", path: "/forward/{id}", summary: "Connect to a TCP port on the guest's loopback (Upgrade)", upgrade: api.UpgradeForward,
			query: []param{{"port", "integer", "1-65535", true}}, run: s.forward,
		},
		{method: "POST", path: "/stop/{id}", summary: "Power a VM off; an unnamed one is destroyed", out: api.StopReply{}, run: s.stop},
		{method: "POST", path: "/restart/{id}", summary: "Stop a named VM and start it again", out: api.ProvisionReply{}, run: s.restart},
		{method: "DELETE", path: "/delete/{id}", summary: "Destroy a VM and its files", out: api.Success{}, run: s.remove},
		{method: "POST", path: "/suspend/{id}", summary: "Save a named VM's memory and end it", out: api.Success{}, run: s.suspend},
		{
			method: "POST", path: "/resume/{name}", summary: "Start a named VM unless it runs; a suspended one goes on", out: api.ProvisionReply{}, run: s.resume,
			query: []param{{"cold", "boolean", "boot a suspended VM, giving up what was in its memory", false}},
		},
		{method: "POST", path: "/persist/{id}", summary: "Name a temporary VM, so that it stays", in: api.PersistRequest{}, out: api.Success{}, run: s.persist},
		{method: "POST", path: "/purge", summary: "Destroy the temporary VMs, and the named ones too", in: api.PurgeRequest{}, out: api.PurgeReply{}, run: s.purge},
		{method: "POST", path: "/run", summary: "Run a command in a VM made for it", in: api.RunRequest{}, out: api.ExecReply{}, run: s.runOnce},
	}
}
