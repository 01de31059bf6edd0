package ledger

import "time"

// ExecEvent is one command that was run in the VM from outside.
type ExecEvent struct {
	// Time is when it began; zero is now.
	Time time.Time
	// ExecID names the run.
	ExecID string
	// Command is what was run. What looks like a credential is redacted.
	Command string
	// ExitCode is its result.
	ExitCode int
	// Duration is how long it ran.
	Duration time.Duration
	// Stdout and Stderr are beginnings of what it wrote.
	Stdout, Stderr string
	// StdoutBytes and StderrBytes count all it wrote.
	StdoutBytes, StderrBytes int64
	// Source is "api", "shell" or "mcp".
	Source string
	// MCPCall is the row of mcp_calls behind it, if any.
	MCPCall int64
	// TraceID joins it to a task.
	TraceID string
	// Process is what ran.
	Process Process
}

func (e ExecEvent) table() int { return execTable }

func (e ExecEvent) encode(c *cells) {
	c.time(e.Time)
	c.text(e.ExecID)
	c.secretive(e.Command, MaxLong)
	c.int(int64(e.ExitCode))
	c.millis(e.Duration)
	c.secretive(e.Stdout, MaxOutput)
	c.secretive(e.Stderr, MaxOutput)
	c.int(e.StdoutBytes)
	c.int(e.StderrBytes)
	c.text(e.Source)
	c.id(e.MCPCall)
	c.text(e.TraceID)
	c.text(e.Process.Name)
	c.id(e.Process.PID)
}

// FileEvent is one change in the workspace.
type FileEvent struct {
	// Time is when it happened; zero is now.
	Time time.Time
	// Action is "created", "modified", "deleted" or "renamed".
	Action string
	// Path is relative to the workspace.
	Path string
	// Size is the file's after it; negative is unknown.
	Size int64
	// PID is the process in the guest, as its kernel says; 0 is unknown.
	PID int64
}

func (e FileEvent) table() int { return fileTable }

func (e FileEvent) encode(c *cells) {
	c.time(e.Time)
	c.text(e.Action)
	c.text(e.Path)
	if e.Size < 0 {
		c.null()
	} else {
		c.int(e.Size)
	}
	c.id(e.PID)
}

// SnapshotEvent is one snapshot of the workspace. The writer notes which file events lie between it and the one before.
type SnapshotEvent struct {
	// Time is when it was made; zero is now.
	Time time.Time
	// Slot, Origin ("auto" or "manual") and Name are the snapshot's.
	Slot int
	// Origin is "auto" or "manual".
	Origin string
	// Name is the owner's, if any.
	Name string
	// Files counts what is in it.
	Files int64
}

func (e SnapshotEvent) table() int { return snapshotTable }

// The last two columns of a snapshot are the writer's.
const snapshotStart, snapshotStop = columnsAt + 5, columnsAt + 6

func (e SnapshotEvent) encode(c *cells) {
	c.time(e.Time)
	c.int(int64(e.Slot))
	c.text(e.Origin)
	c.text(e.Name)
	c.int(e.Files)
	c.null()
	c.null()
}

// AuditEvent is one program that was started in the guest, as its kernel reports it.
type AuditEvent struct {
	// Time is when it happened; zero is now.
	Time time.Time
	// PID, PPID and UID are the process's.
	PID, PPID, UID int64
	// Exe, Comm, Argv and Cwd say what was started, how and where. What looks like a credential is redacted.
	Exe, Comm, Argv, Cwd string
	// ExitCode is the system call's result.
	ExitCode int
	// SessionID and TTY are the guest's.
	SessionID int64
	// TTY is the guest's.
	TTY string
	// AuditID is the kernel's number of the record.
	AuditID string
	// ExecEvent is the row of exec_events it belongs to, if known.
	ExecEvent int64
	// ParentExe is the program that started it.
	ParentExe string
}

func (e AuditEvent) table() int { return auditTable }

func (e AuditEvent) encode(c *cells) {
	c.time(e.Time)
	c.int(e.PID)
	c.int(e.PPID)
	c.int(e.UID)
	c.text(e.Exe)
	c.text(e.Comm)
	c.secretive(e.Argv, MaxText)
	c.text(e.Cwd)
	c.int(int64(e.ExitCode))
	c.id(e.SessionID)
	c.text(e.TTY)
	c.text(e.AuditID)
	c.id(e.ExecEvent)
	c.text(e.ParentExe)
}

// Lifecycle is a step in the VM's life: created, booted, suspended, resumed, forked, stopped.
type Lifecycle struct {
	// Time is when it happened; zero is now.
	Time time.Time
	// Event names the step.
	Event string
	// Detail says more.
	Detail string
	// Duration is how long the step took.
	Duration time.Duration
}

func (e Lifecycle) table() int { return lifecycleTable }

func (e Lifecycle) encode(c *cells) {
	c.time(e.Time)
	c.text(e.Event)
	c.secretive(e.Detail, MaxText)
	c.millis(e.Duration)
}

// Drop says that events were lost, and how many. Only the writer makes it.
type Drop struct {
	// Time is when it was noted.
	Time time.Time
	// Kind is which events, Count how many, First and Last when.
	Kind string
	// Count is how many.
	Count int64
	// First and Last are when the first and the last of them were lost.
	First, Last time.Time
	// Reason says why.
	Reason string
}

func (e Drop) table() int { return dropTable }

func (e Drop) encode(c *cells) {
	c.time(e.Time)
	c.text(e.Kind)
	c.int(e.Count)
	c.time(e.First)
	c.time(e.Last)
	c.text(e.Reason)
}
