// Package api is the wire types of the local HTTP API on run/service.sock (design section 5). It imports only layer 0.
// Routes:
//
//	GET    /version                       VersionReply
//	GET    /status                        ServiceStatus
//	GET    /openapi.json                  the document generated from these types
//	POST   /provision                     ProvisionRequest -> ProvisionReply (waits until the guest answers unless NoWait)
//	GET    /list                          ListReply
//	GET    /info/{id}                     SandboxInfo
//	GET    /logs/{id}?tail=N&follow=1     LogsReply, or with follow text/plain as it grows
//	POST   /exec/{id}                     ExecRequest -> ExecReply (output capped at MaxBufferedOutput each, Truncated says so)
//	POST   /exec/{id}/stream              101 upgrade "capsem-stream/1": CBOR-free frames of proto.Kind; first client frame is JSON ExecRequest
//	                                      as KindData (frames of proto.MaxChunk go on in the next); or, with Accept: application/x-ndjson, StreamLine values
//	GET    /jobs/{id}                     JobsReply
//	GET    /jobs/{id}/{job}?wait=1        proto.Job
//	DELETE /jobs/{id}/{job}               cancels
//	POST   /read_file/{id}                FilePath -> FileText (text, <= MaxTextFile)
//	POST   /write_file/{id}               FileText -> Success
//	GET    /files/{id}?path=&depth=       FilesReply
//	GET    /files/{id}/content?path=      raw bytes, chunked, any size
//	POST   /files/{id}/content?path=&mode= raw bytes in, any size -> FileReply
//	GET    /files/{id}/stat?path=         proto.FileInfo
//	DELETE /files/{id}/content?path=&recursive=1
//	POST   /files/{id}/mkdir?path=&mode=  FileReply
//	POST   /terminal/{id}                 TerminalReply: the worker's socket
//	POST   /forward/{id}?port=N           101 upgrade "capsem-forward/1": raw bytes
//	POST   /stop/{id}                     StopReply
//	POST   /restart/{id}                  ProvisionReply
//	DELETE /delete/{id}                   Success
//	POST   /suspend/{id}                  Success
//	POST   /resume/{name}?cold=           ProvisionReply
//	POST   /persist/{id}                  PersistRequest -> Success
//	POST   /purge                         PurgeRequest -> PurgeReply
//	POST   /run                           RunRequest -> ExecReply
//	GET    /service-logs                  text, last 100 KiB
//	POST   /fork/{id}                     ForkRequest -> Image
//	POST   /checkpoints/{id}              CheckpointRequest -> Checkpoint
//	GET    /checkpoints/{id}              CheckpointsReply
//	DELETE /checkpoints/{id}/{name}       Success
//	POST   /rewind/{id}                   RewindRequest -> ProvisionReply
//	GET    /images                        ImagesReply
//	GET    /images/{name}                 Image
//	GET    /images/{name}/archive         raw bytes: the image without its memory
//	POST   /images/{name}/archive         raw bytes in -> Image
//	DELETE /images/{name}                 Success
//	GET    /snapshots/{id}                SnapshotsReply
//	POST   /snapshots/{id}                SnapshotCreateRequest -> SnapshotCreated
//	GET    /snapshots/{id}/changes        WorkspaceChangesReply
//	GET    /snapshots/{id}/diff?from=&to=&path=   SnapshotDiffReply
//	POST   /snapshots/{id}/revert         SnapshotRevertRequest -> SnapshotReverted
//	GET    /snapshots/{id}/history?path=  SnapshotHistory
//	POST   /snapshots/{id}/compact        SnapshotCompactRequest -> SnapshotCompacted
//	DELETE /snapshots/{id}/{checkpoint}   Success
//	GET    /snapshots/{id}/{checkpoint}/content?path=   raw bytes
//	GET    /sessions?status=&limit=       SessionsReply
//	GET    /history/{id}?kind=&search=&decision=&since=&until=&after=&limit=   HistoryPage
//	GET    /history/{id}/processes        ProcessesReply
//	POST   /inspect/{id}                  InspectRequest -> InspectReply
//	GET    /export/{id}?format=&follow=   a record in a format of core/export
//	GET    /verify/{id}                   VerifyReport
//	GET    /stats                         StatsReply
//	GET    /approvals?watch=              ApprovalsReply; with watch one in each line, at every change
//	POST   /approvals/{question}          AnswerRequest -> AnswerReply
//	GET    /secrets                       SecretsReply
//	PUT    /secrets/{name}                SecretRequest -> Secret; the body is never logged
//	DELETE /secrets/{name}                Success
//	POST   /secrets/{name}/test           SecretTest
//	GET    /policy/suggest/{id}           SuggestReply
//	POST   /policy/rules                  PolicyRulesRequest -> Success
//	GET    /stats/{id}                    RecordTotals
//	GET    /budgets                       BudgetsReply
//	POST   /budgets                       BudgetRequest -> Success
//	POST   /budgets/reset                 BudgetResetRequest -> Success
//	GET    /mcp/servers                   MCPServersReply
//	POST   /mcp/servers                   MCPAddRequest -> Success
//	DELETE /mcp/servers/{name}            Success
//	PUT    /mcp/servers/{name}/login      MCPLoginRequest -> Success
//	DELETE /mcp/servers/{name}/login      Success
//	GET    /mcp/tools?server=             MCPToolsReply
//	POST   /mcp/tools/refresh             MCPRefreshRequest -> MCPServersReply
//	POST   /mcp/tools/{name}/approve      MCPApproveRequest -> MCPApproveReply
//	POST   /mcp/tools/{name}/call         MCPCallRequest -> the tool's result, as MCP has it
//	GET    /templates                     TemplatesReply
//	POST   /templates/rebuild             RebuildTemplateRequest -> TemplatesReply
//	POST   /templates/prune               PruneTemplatesReply
//	POST   /shutdown                      ShutdownReply; the service exits, VMs keep running
package api

import (
	"capsem/core/lifecycle"
	"capsem/core/proto"
)

// Limits of the API.
const (
	// MaxBody bounds a JSON request body.
	MaxBody = 1 << 20
	// MaxTextFile bounds read_file and write_file; larger files go through /files/{id}/content.
	MaxTextFile = 10 << 20
	// MaxBufferedOutput bounds each stream of the buffered exec and run; the stream route has no cap.
	MaxBufferedOutput = 10 << 20
	// UpgradeStream and UpgradeForward are the Upgrade tokens.
	UpgradeStream  = "capsem-stream/1"
	UpgradeForward = "capsem-forward/1"
	// VersionHeader carries the build version, both ways.
	VersionHeader = "Capsem-Version"
)

// ForkRequest names the image that a VM is forked into.
type ForkRequest struct {
	Image       string `json:"image"`
	Description string `json:"description,omitempty"`
}

// CheckpointRequest names the state of a VM that is kept.
type CheckpointRequest struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
}

// RewindRequest names the checkpoint that a VM is put back to.
type RewindRequest struct {
	Name string `json:"name"`
}

// CheckpointsReply lists the checkpoints of a VM in the order of their names.
type CheckpointsReply struct {
	Checkpoints []Checkpoint `json:"checkpoints"`
}

// Checkpoint is a state of a VM that it can be put back to.
type Checkpoint struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	CreatedAt   string `json:"created_at"`
	// Memory says that what ran goes on; without it the VM boots.
	Memory    bool  `json:"memory"`
	SizeBytes int64 `json:"size_bytes"`
}

// ImagesReply lists the images in the order of their names.
type ImagesReply struct {
	Images []Image `json:"images"`
}

// Image is what a VM was forked into, and VMs can be made of.
type Image struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	CreatedAt   string `json:"created_at"`
	// Version is the asset version that its VMs boot.
	Version string `json:"version"`
	CPUs    int    `json:"cpus"`
	RAMMB   int    `json:"ram_mb"`
	DiskMB  int    `json:"disk_mb"`
	// From is the VM that it was forked from, Parent the image of that.
	From   string `json:"from"`
	Parent string `json:"parent,omitempty"`
	// Memory says that its VMs go on with what ran; without it they boot.
	Memory    bool  `json:"memory"`
	SizeBytes int64 `json:"size_bytes"`
	// Env is the names of the variables that its VMs have.
	Env []string `json:"env,omitempty"`
}

// TemplatesReply lists what new VMs may start from, the one that was used last first.
type TemplatesReply struct {
	Templates []Template `json:"templates"`
	// Making says that one is being made.
	Making bool `json:"making"`
}

// Template is a saved guest from which VMs of the same image and sizes start without booting.
type Template struct {
	Key string `json:"key"`
	// Version is the image's.
	Version     string `json:"version"`
	CPUs        int    `json:"cpus"`
	RAMMB       int    `json:"ram_mb"`
	DiskMB      int    `json:"disk_mb"`
	Accelerator string `json:"accelerator"`
	// MadeAt and UsedAt are RFC 3339; SizeBytes is what it takes on disk.
	MadeAt    string `json:"made_at"`
	UsedAt    string `json:"used_at"`
	SizeBytes int64  `json:"size_bytes"`
}

// RebuildTemplateRequest asks for the template for VMs of these sizes to be made anew; 0 means as the settings say.
type RebuildTemplateRequest struct {
	CPUs   int `json:"cpus,omitempty"`
	RAMMB  int `json:"ram_mb,omitempty"`
	DiskMB int `json:"disk_mb,omitempty"`
	// IfMissing makes it only if there is none.
	IfMissing bool `json:"if_missing,omitempty"`
}

// PruneTemplatesReply counts what was removed.
type PruneTemplatesReply struct {
	Success bool `json:"success"`
	Pruned  int  `json:"pruned"`
}

// ShutdownReply answers POST /shutdown.
type ShutdownReply struct {
	Success bool `json:"success"`
	// Attached is how many commands with a client, and forwarded connections, end with the service.
	Attached int `json:"attached"`
}

// ErrorBody is every error answer.
type ErrorBody struct {
	// Error is the failure.
	Error ErrorInfo `json:"error"`
}

// ErrorInfo says what went wrong and what to do.
type ErrorInfo struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// VersionReply describes the running service.
type VersionReply struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	BuildTime string `json:"build_time"`
	Protocol  int    `json:"protocol"`
	PID       int    `json:"pid"`
}

// ServiceStatus is the service's own state.
type ServiceStatus struct {
	VersionReply
	// UptimeSecs is since the service started.
	UptimeSecs int64  `json:"uptime_secs"`
	Home       string `json:"home"`
	// Running, Stopped and MaxVMs count VMs.
	Running int `json:"running"`
	Stopped int `json:"stopped"`
	MaxVMs  int `json:"max_vms"`
	// Pooled counts VMs that are ready for somebody; they are in no other number.
	Pooled int `json:"pooled,omitempty"`
	// Accelerator is the verdict for this host: kvm or tcg, with why.
	Accelerator string      `json:"accelerator"`
	Assets      AssetHealth `json:"assets"`
	// Notices say what was wrong with the state found on disk, such as a corrupt file that was moved aside.
	Notices []string `json:"notices,omitempty"`
}

// AssetHealth says whether a VM can be booted.
type AssetHealth struct {
	Ready   bool     `json:"ready"`
	Version string   `json:"version,omitempty"`
	Missing []string `json:"missing,omitempty"`
}

// ProvisionRequest creates a VM and starts it.
type ProvisionRequest struct {
	// Name makes it persistent; empty makes a temporary one.
	Name string `json:"name,omitempty"`
	// RAMMB, CPUs and DiskMB default to the settings when 0.
	RAMMB  int `json:"ram_mb,omitempty"`
	CPUs   int `json:"cpus,omitempty"`
	DiskMB int `json:"disk_mb,omitempty"`
	// Persistent must agree with Name when set.
	Persistent bool `json:"persistent,omitempty"`
	// Env is set in every command of the VM.
	Env map[string]string `json:"env,omitempty"`
	// NoWait answers as soon as the worker runs instead of when the guest answers.
	NoWait bool `json:"no_wait,omitempty"`
	// Image is what to make it of (POST /fork); its sizes and environment count where none are given.
	Image string `json:"image,omitempty"`
	// Mounts are directories of the host that the VM shares; ForceMounts allows ones that are more than anybody would mean.
	Mounts      []proto.Mount `json:"mounts,omitempty"`
	ForceMounts bool          `json:"force_mounts,omitempty"`
	// Policy are rules of the VM's own, as in policy.toml. They only narrow what the other rules allow. Empty: those of Image, if any.
	Policy string `json:"policy,omitempty"`
	// Secrets are the names of the stored secrets that it gets placeholders of. Left out: those of Image, if that says, else all; an empty
	// list: none.
	Secrets []string `json:"secrets,omitzero"`
	// Cold boots the VM even where it could go on from a template.
	Cold bool `json:"cold,omitempty"`
}

// ProvisionReply names the VM.
type ProvisionReply struct {
	ID string `json:"id"`
	// UDSPath is the worker's socket.
	UDSPath string `json:"uds_path"`
}

// SandboxInfo describes one VM.
type SandboxInfo struct {
	ID         string          `json:"id"`
	Name       string          `json:"name,omitempty"`
	PID        int             `json:"pid,omitempty"`
	Status     lifecycle.State `json:"status"`
	Persistent bool            `json:"persistent"`
	RAMMB      int             `json:"ram_mb"`
	CPUs       int             `json:"cpus"`
	DiskMB     int             `json:"disk_mb"`
	// Version is the asset version it boots.
	Version string `json:"version"`
	// SizeBytes is what its directory takes on disk (allocated blocks).
	SizeBytes int64 `json:"size_bytes"`
	// CreatedAt is RFC 3339; UptimeSecs since the guest answered.
	CreatedAt  string `json:"created_at"`
	UptimeSecs int64  `json:"uptime_secs"`
	// HypervisorPID, Accelerator and Carrier are of a live VM.
	HypervisorPID int    `json:"hypervisor_pid,omitempty"`
	Accelerator   string `json:"accelerator,omitempty"`
	Carrier       string `json:"carrier,omitempty"`
	// LastError says why it is Defunct, or why a Suspended one did not go on.
	LastError string `json:"last_error,omitempty"`
	// Idle says that a Suspended VM is so because nobody used it: its next command, shell or file operation wakes it.
	Idle bool `json:"idle,omitempty"`
	// Step is what a Booting VM is doing.
	Step string `json:"step,omitempty"`
	// Mounts are the directories of the host that it shares besides its workspace.
	Mounts []proto.Mount `json:"mounts,omitempty"`
	// Secrets are the names of the secrets that it has; left out for all, empty for none.
	Secrets []string `json:"secrets,omitzero"`
	// Image is what it was made of; Notes are what its owner should know of its start.
	Image string   `json:"image,omitempty"`
	Notes []string `json:"notes,omitempty"`
	// Warm says that it went on from a template instead of booting.
	Warm bool `json:"warm,omitempty"`
	// BootStages is the guest's own timing; BootMS from worker start to ready.
	BootStages []proto.BootStage `json:"boot_stages,omitempty"`
	BootMS     int64             `json:"boot_ms,omitempty"`
	// Dir is its directory on the host; UDSPath its worker's socket.
	Dir     string `json:"dir,omitempty"`
	UDSPath string `json:"uds_path,omitempty"`
}

// ListReply is every VM.
type ListReply struct {
	Sandboxes   []SandboxInfo `json:"sandboxes"`
	AssetHealth AssetHealth   `json:"asset_health"`
}

// LogsReply is the logs of one VM, also of one that failed and is gone.
type LogsReply struct {
	// Logs is both, under headings; the others each alone.
	Logs        string `json:"logs"`
	SerialLogs  string `json:"serial_logs,omitempty"`
	ProcessLogs string `json:"process_logs,omitempty"`
}

// ExecRequest runs a command in a VM.
type ExecRequest struct {
	// Command is run by bash -c; Argv as it is. One of them.
	Command string            `json:"command,omitempty"`
	Argv    []string          `json:"argv,omitempty"`
	Dir     string            `json:"dir,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	// TimeoutSecs kills the command after that time; 0 means no limit.
	TimeoutSecs float64 `json:"timeout_secs,omitempty"`
	// Stdin says that input frames will come (stream route only). StdinText is input for the buffered route.
	Stdin     bool   `json:"stdin,omitempty"`
	StdinText string `json:"stdin_text,omitempty"`
	// PTY asks for a terminal (stream route only).
	PTY *proto.WindowSize `json:"pty,omitempty"`
	// Detach answers at once with the job; the command goes on.
	Detach bool `json:"detach,omitempty"`
}

// ExecReply is the result of a buffered command.
type ExecReply struct {
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
	ExitCode int    `json:"exit_code"`
	Signal   string `json:"signal,omitempty"`
	// Error says why the command could not be run.
	Error string `json:"error,omitempty"`
	// Truncated says that a stream was longer than MaxBufferedOutput.
	Truncated bool `json:"truncated,omitempty"`
	// DurationUS is the guest's own time for the command, in microseconds.
	DurationUS int64  `json:"duration_us"`
	Job        string `json:"job,omitempty"`
}

// StreamLine is one NDJSON line of a command's stream. Exactly one field is set.
type StreamLine struct {
	Started *proto.Started     `json:"started,omitempty"`
	Stdout  []byte             `json:"stdout,omitempty"` // base64
	Stderr  []byte             `json:"stderr,omitempty"` // base64
	Exit    *proto.ExitStatus  `json:"exit,omitempty"`
	Error   *proto.StreamError `json:"error,omitempty"`
}

// RunRequest creates a temporary VM, runs a command and destroys the VM.
type RunRequest struct {
	ExecRequest
	RAMMB  int `json:"ram_mb,omitempty"`
	CPUs   int `json:"cpus,omitempty"`
	DiskMB int `json:"disk_mb,omitempty"`
	// Secrets are as in ProvisionRequest.
	Secrets []string `json:"secrets,omitzero"`
}

// JobsReply lists the jobs of one VM, newest first.
type JobsReply struct {
	Jobs []proto.Job `json:"jobs"`
}

// FilePath names a file in the VM, beneath /root unless absolute.
type FilePath struct {
	Path string `json:"path"`
}

// FileText is a text file.
type FileText struct {
	Path    string `json:"path,omitempty"`
	Content string `json:"content"`
}

// FilesReply lists files, directories first.
type FilesReply struct {
	Files []proto.FileInfo `json:"files"`
}

// FileReply describes a file after it was written.
type FileReply struct {
	Success bool            `json:"success"`
	Info    *proto.FileInfo `json:"info,omitempty"`
}

// TerminalReply tells a client where to attach (proto.OpTerminal).
type TerminalReply struct {
	UDSPath string `json:"uds_path"`
}

// Success is a bare acknowledgement.
type Success struct {
	Success bool `json:"success"`
}

// StopReply says whether the VM was kept.
type StopReply struct {
	Success    bool `json:"success"`
	Persistent bool `json:"persistent"`
}

// PersistRequest names a temporary VM.
type PersistRequest struct {
	Name string `json:"name"`
}

// PurgeRequest destroys temporary VMs, and named ones too when All.
type PurgeRequest struct {
	All bool `json:"all"`
}

// PurgeReply counts what was destroyed.
type PurgeReply struct {
	Purged           int `json:"purged"`
	PersistentPurged int `json:"persistent_purged"`
	EphemeralPurged  int `json:"ephemeral_purged"`
}
