package proto

import (
	"errors"
	"fmt"
	"path"

	"capsem/core/lifecycle"
)

// The worker's socket (mode 0600). Every connection begins with a WorkerHello frame from the client and one from the
// worker; then the client sends WorkerRequest frames. Unary operations are answered by one WorkerReply each and may
// follow one another; streaming ones (exec, attach, terminal, file, forward, watch) are answered by one WorkerReply and,
// when it carries no error, take over the connection.

// WorkerHello opens a connection, from each side.
type WorkerHello struct {
	// Protocol is proto.Version; Build the binary's version, for messages.
	Protocol int    `cbor:"protocol"`
	Build    string `cbor:"build"`
	// PID, ID and BootNonce are the worker's; empty from a client. BootNonce differs each time a worker is started.
	PID       int    `cbor:"pid,omitempty"`
	ID        string `cbor:"id,omitempty"`
	BootNonce string `cbor:"boot_nonce,omitempty"`
}

// WorkerOp is what a WorkerRequest asks for.
type WorkerOp string

// The operations.
const (
	// OpStatus returns WorkerStatus.
	OpStatus WorkerOp = "status"
	// OpWatch streams one WorkerStatus frame now and one at each change, until either side closes.
	OpWatch WorkerOp = "watch"
	// OpExec takes Exec; stream frames follow, as on PortExec. With Detach the stream is only Started, and the job goes on.
	OpExec WorkerOp = "exec"
	// OpJobs returns all jobs, newest first; OpJob the one named.
	OpJobs WorkerOp = "jobs"
	// OpJob returns one job with the kept tail of its output.
	OpJob WorkerOp = "job"
	// OpWaitJob streams the result: the reply comes when the job has ended.
	OpWaitJob WorkerOp = "wait_job"
	// OpCancelJob kills a job's process group.
	OpCancelJob WorkerOp = "cancel_job"
	// OpTerminal takes Terminal; stream frames follow, as on PortTerminal.
	OpTerminal WorkerOp = "terminal"
	// OpFile takes File; stream frames follow, as on PortAgentFiles.
	OpFile WorkerOp = "file"
	// OpForward takes ForwardPort; raw bytes of one TCP connection to the guest's loopback follow.
	OpForward WorkerOp = "forward"
	// OpStop powers the guest off in order, then ends the worker. OpKill does so without asking the guest.
	OpStop WorkerOp = "stop"
	// OpKill ends the VM at once.
	OpKill WorkerOp = "kill"
	// OpRelocate tells the worker that its directory was renamed (persist): Dir, ID and Name are the new ones.
	OpRelocate WorkerOp = "relocate"
	// OpPause and OpResume stop and start the virtual CPUs.
	OpPause WorkerOp = "pause"
	// OpSuspend saves the memory and ends the VM; it is answered when that is done.
	OpSuspend WorkerOp = "suspend"
	// OpFork saves the memory and the disk in Dir, an image that is being made, and lets the VM go on.
	OpFork   WorkerOp = "fork"
	OpResume WorkerOp = "resume"
	// OpSnapshots does something with the snapshots of the workspace. The connection then carries the answer, to its end.
	OpSnapshots WorkerOp = "snapshots"
	// OpAnswer answers a question to the owner; the reply's Text is a rule for the owner's policy, after "always".
	OpAnswer WorkerOp = "answer"
	// OpCredentials gives the worker the credentials of its VM, in place of those it has.
	OpCredentials WorkerOp = "credentials"
	// OpMCP does something with the MCP servers. The connection then carries the answer, to its end.
	OpMCP WorkerOp = "mcp"
)

// WorkerRequest is one request to a worker. Only the field that belongs to Op is set.
type WorkerRequest struct {
	Op WorkerOp `cbor:"op"`
	// Exec belongs to OpExec; Detach lets the command outlive the connection.
	Exec   *ExecRequest `cbor:"exec,omitempty"`
	Detach bool         `cbor:"detach,omitempty"`
	// Job belongs to OpJob, OpWaitJob and OpCancelJob.
	Job string `cbor:"job,omitempty"`
	// Terminal belongs to OpTerminal; File to OpFile; ForwardPort to OpForward.
	Terminal    *TerminalOpen `cbor:"terminal,omitempty"`
	File        *FileRequest  `cbor:"file,omitempty"`
	ForwardPort uint16        `cbor:"forward_port,omitempty"`
	// Snapshots belongs to OpSnapshots.
	Snapshots *SnapshotRequest `cbor:"snapshots,omitempty"`
	// Answer belongs to OpAnswer.
	Answer *AnswerRequest `cbor:"answer,omitempty"`
	// Credentials belongs to OpCredentials.
	Credentials *Credentials `cbor:"credentials,omitempty"`
	// MCP belongs to OpMCP.
	MCP *MCPRequest `cbor:"mcp,omitempty"`
	// GraceMS belongs to OpStop.
	GraceMS uint32 `cbor:"grace_ms,omitempty"`
	// IdleMS belongs to OpSuspend: a VM that somebody has used within that time is not suspended.
	IdleMS uint32 `cbor:"idle_ms,omitempty"`
	// Dir, ID and Name belong to OpRelocate; Dir to OpFork too.
	Dir  string `cbor:"dir,omitempty"`
	ID   string `cbor:"id,omitempty"`
	Name string `cbor:"name,omitempty"`
}

// WorkerReply answers one WorkerRequest.
type WorkerReply struct {
	// Error is set when the request was refused or failed.
	Error *StreamError `cbor:"error,omitempty"`
	// Status belongs to OpStatus; Jobs to OpJobs, OpJob and OpWaitJob.
	Status *WorkerStatus `cbor:"status,omitempty"`
	Jobs   []Job         `cbor:"jobs,omitempty"`
	// Text belongs to OpAnswer.
	Text string `cbor:"text,omitempty"`
}

// WorkerStatus is what a worker says of itself and its VM. Nothing here validates it: its readers refuse a State that is none,
// and the service one with another PID than the worker's, cuts LastError and Step, and takes the rest as it is.
type WorkerStatus struct {
	ID    string          `cbor:"id"`
	Name  string          `cbor:"name,omitempty"`
	State lifecycle.State `cbor:"state"`
	// PID is the worker's, HypervisorPID QEMU's (0 when down).
	PID           int `cbor:"pid"`
	HypervisorPID int `cbor:"hypervisor_pid,omitempty"`
	// StartedNS is when the worker started, ReadyNS when the guest first answered (0 before), since 1970.
	StartedNS int64 `cbor:"started_ns"`
	ReadyNS   int64 `cbor:"ready_ns,omitempty"`
	// Accelerator is kvm, tcg or hvf; Carrier vsock or serial.
	Accelerator string `cbor:"accelerator,omitempty"`
	Carrier     string `cbor:"carrier,omitempty"`
	// Stages is the guest's boot timing.
	Stages []BootStage `cbor:"stages,omitempty"`
	// Failed lists boot steps that went wrong.
	Failed []string `cbor:"failed,omitempty"`
	// LastError says why the VM is Defunct, with the tail of the serial log.
	LastError string `cbor:"last_error,omitempty"`
	// Step is what is happening while Booting, for progress lines.
	Step string `cbor:"step,omitempty"`
	// Notes are what its owner should know of this start.
	Notes []string `cbor:"notes,omitempty"`
	// Warm says that it went on from a template instead of booting.
	Warm bool `cbor:"warm,omitempty"`
	// IdleNS is how long nobody has used the VM, 0 while somebody does; only in OpStatus. Idle says of a suspended VM that this was
	// why.
	IdleNS int64 `cbor:"idle_ns,omitempty"`
	Idle   bool  `cbor:"idle,omitempty"`
	// Waiting is how many questions wait for the owner, Questions the oldest of them as JSON (core/approval's Question).
	Waiting   int    `cbor:"waiting,omitempty"`
	Questions []byte `cbor:"questions,omitempty"`
	// Refused are tokens that MCP servers do not take any more: the service is to get the next ones.
	Refused []RefusedToken `cbor:"refused,omitempty"`
	// Suspending says that the memory is being saved.
	Suspending bool `cbor:"suspending,omitempty"`
	// Reboots counts guest reboots since the worker started.
	Reboots int `cbor:"reboots,omitempty"`
}

// RefusedToken is a token of a sign-in, by the name of its secret, that its server has refused.
type RefusedToken struct {
	Name string `cbor:"name"`
	// Mark tells which token it was (core/mcp's Mark). Number grows each time the worker asks for another.
	Mark   string `cbor:"mark"`
	Number uint64 `cbor:"number"`
}

// JobState is where a job is.
type JobState string

// The job states.
const (
	JobRunning JobState = "running"
	JobDone    JobState = "done"
	// JobLost is a job whose link broke before its exit was known.
	JobLost JobState = "lost"
)

// Job is one exec or file operation in the worker's store.
type Job struct {
	// ID is unique in the VM; Kind is exec or file; What is the command or path, cut to 200 bytes.
	ID    string   `cbor:"id" json:"id"`
	Kind  string   `cbor:"kind" json:"kind"`
	What  string   `cbor:"what" json:"what"`
	State JobState `cbor:"state" json:"state"`
	// StartedNS and EndedNS are since 1970.
	StartedNS int64 `cbor:"started_ns" json:"started_ns"`
	EndedNS   int64 `cbor:"ended_ns,omitempty" json:"ended_ns,omitempty"`
	// Detached says that it outlives its client.
	Detached bool `cbor:"detached,omitempty" json:"detached,omitempty"`
	// Exit is set once an exec is done.
	Exit *ExitStatus `cbor:"exit,omitempty" json:"exit,omitempty"`
	// Error says why it is lost or failed.
	Error string `cbor:"error,omitempty" json:"error,omitempty"`
	// Stdout and Stderr are the last bytes (at most 64 KiB each) of a detached exec; only in OpJob and OpWaitJob.
	Stdout []byte `cbor:"stdout,omitempty" json:"stdout,omitempty"`
	Stderr []byte `cbor:"stderr,omitempty" json:"stderr,omitempty"`
	// StdoutBytes and StderrBytes count everything written.
	StdoutBytes int64 `cbor:"stdout_bytes,omitempty" json:"stdout_bytes"`
	StderrBytes int64 `cbor:"stderr_bytes,omitempty" json:"stderr_bytes"`
}

// Validate checks that the operation has what it needs.
func (r *WorkerRequest) Validate() error {
	switch r.Op {
	case OpExec:
		if r.Exec == nil {
			return errors.New("exec request without a command")
		}
		return r.Exec.Validate()
	case OpTerminal:
		if r.Terminal == nil {
			return errors.New("terminal request without a size")
		}
		return r.Terminal.Validate()
	case OpFile:
		if r.File == nil {
			return errors.New("file request without an operation")
		}
		return r.File.Validate()
	case OpForward:
		if r.ForwardPort == 0 {
			return errors.New("forward request without a port")
		}
	case OpJob, OpWaitJob, OpCancelJob:
		if r.Job == "" || len(r.Job) > 64 || !isText(r.Job) {
			return errors.New("job id is empty, too long, or no text")
		}
	case OpAnswer:
		if r.Answer == nil {
			return errors.New("answer request without an answer")
		}
		return r.Answer.Validate()
	case OpCredentials:
		if r.Credentials == nil {
			return errors.New("credentials request without credentials")
		}
		return r.Credentials.Validate()
	case OpMCP:
		if r.MCP == nil {
			return errors.New("MCP request without an operation")
		}
		return r.MCP.Validate()
	case OpSnapshots:
		if r.Snapshots == nil {
			return errors.New("snapshots request without an operation")
		}
		return r.Snapshots.Validate()
	case OpFork:
		if len(r.Dir) > MaxPath || !isText(r.Dir) || !path.IsAbs(r.Dir) || path.Clean(r.Dir) != r.Dir {
			return errors.New("fork request without a clean, absolute directory")
		}
	case OpRelocate:
		return r.checkRelocate()
	case OpStatus, OpWatch, OpJobs, OpStop, OpKill, OpPause, OpResume, OpSuspend:
	default:
		return fmt.Errorf("unknown worker operation %.20q", r.Op)
	}
	return nil
}

func (r *WorkerRequest) checkRelocate() error {
	switch {
	case r.Dir == "" || r.ID == "":
		return errors.New("relocate request without a directory or an id")
	case len(r.Dir) > MaxPath || !path.IsAbs(r.Dir) || path.Clean(r.Dir) != r.Dir || !isText(r.Dir):
		return fmt.Errorf("relocate request: directory %.80q is not an absolute, clean path of at most %d bytes", r.Dir, MaxPath)
	case len(r.ID) > 64 || len(r.Name) > 64 || !isText(r.ID) || !isText(r.Name):
		return errors.New("relocate request: id or name is longer than 64 bytes, or no text")
	}
	return nil
}
