package api

import (
	"fmt"
	"time"
)

// Session is one session, of a VM that there is or was.
type Session struct {
	// ID is the session's, Name the VM's, if it has one.
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	// Mode and Command say how it was started.
	Mode    string `json:"mode,omitempty"`
	Command string `json:"command,omitempty"`
	// Status is "running", "stopped", "crashed" or "terminated" (its record is gone).
	Status string `json:"status"`
	// Created and Stopped are when it began and ended; Stopped is zero while it runs.
	Created time.Time `json:"created_at"`
	Stopped time.Time `json:"stopped_at,omitzero"`
	// DiskGB, RAM and Storage are the machine's.
	DiskGB  int64  `json:"scratch_disk_size_gb"`
	RAM     int64  `json:"ram_bytes"`
	Storage string `json:"storage_mode,omitempty"`
	// RootfsHash, RootfsVersion and ForkedFrom say what it was made from.
	RootfsHash    string `json:"rootfs_hash,omitempty"`
	RootfsVersion string `json:"rootfs_version,omitempty"`
	ForkedFrom    string `json:"forked_from,omitempty"`
	// Persistent VMs have a name and are kept.
	Persistent bool `json:"persistent"`
	// Totals are what its record summed up to when that was last looked at; Domains, Models, First and Last are not kept here.
	Totals RecordTotals `json:"totals"`
	// DBBytes is the size of its record.
	DBBytes int64 `json:"db_bytes"`
	// HeadSeq and HeadHash are its last signed head: the place in the chain, and the link there.
	HeadSeq  uint64   `json:"head_seq"`
	HeadHash [32]byte `json:"-"`
}

// RecordEntry is one event of any kind.
type RecordEntry struct {
	// Kind is its table: net, dns, model, tool, mcp, file, snapshot, exec, audit, approval, lifecycle, drop.
	Kind string `json:"kind"`
	// ID is its row.
	ID int64 `json:"id"`
	// Time is when it was.
	Time string `json:"time"`
	// Fields are its other columns that have a value.
	Fields map[string]any `json:"fields"`
}

// HistoryPage is a part of a history, newest first.
type HistoryPage struct {
	// Entries are newest first.
	Entries []RecordEntry `json:"entries"`
	// Next continues with older ones; empty at the end.
	Next string `json:"next,omitempty"`
}

// RecordTotals are the sums over one session's record.
type RecordTotals struct {
	// Requests and their decisions.
	Requests int64 `json:"requests"`
	Allowed  int64 `json:"allowed"`
	Denied   int64 `json:"denied"`
	Errors   int64 `json:"errors"`
	// BytesSent and BytesReceived are of all requests.
	BytesSent     int64 `json:"bytes_sent"`
	BytesReceived int64 `json:"bytes_received"`
	// DNSQueries and how many of them were refused.
	DNSQueries int64 `json:"dns_queries"`
	DNSDenied  int64 `json:"dns_denied"`
	// ModelCalls and what they used.
	ModelCalls   int64   `json:"model_calls"`
	InputTokens  int64   `json:"input_tokens"`
	OutputTokens int64   `json:"output_tokens"`
	CostUSD      float64 `json:"cost_usd"`
	// ToolCalls are those that models asked for, MCPCalls went through the gateway.
	ToolCalls int64 `json:"tool_calls"`
	MCPCalls  int64 `json:"mcp_calls"`
	// FileEvents, Snapshots, Execs, AuditEvents and Approvals count rows.
	FileEvents  int64 `json:"file_events"`
	Snapshots   int64 `json:"snapshots"`
	Execs       int64 `json:"execs"`
	AuditEvents int64 `json:"audit_events"`
	Approvals   int64 `json:"approvals"`
	// Lost events could not be kept.
	Lost int64 `json:"lost"`
	// Rows are all that is chained.
	Rows int64 `json:"rows"`
	// CostUnknown counts model calls whose cost is not known, and is not in CostUSD.
	CostUnknown int64 `json:"cost_unknown,omitempty"`
	// Domains are those with the most requests.
	Domains []DomainCount `json:"domains"`
	// Models are those that were called most.
	Models []ModelCount `json:"models,omitempty"`
	// First and Last are the times of the first and last event, empty if there is none.
	First string `json:"first,omitempty"`
	Last  string `json:"last,omitempty"`
}

// DomainCount is one name and its requests.
type DomainCount struct {
	// Domain is the name.
	Domain string `json:"domain"`
	// Requests counts all, Denied those refused.
	Requests int64 `json:"requests"`
	Denied   int64 `json:"denied"`
}

// ModelCount is one model and what it was used for.
type ModelCount struct {
	// Provider and Model say which.
	Provider string `json:"provider"`
	Model    string `json:"model"`
	// Calls counts all, CostUnknown those whose cost is not in CostUSD.
	Calls        int64   `json:"calls"`
	InputTokens  int64   `json:"input_tokens"`
	OutputTokens int64   `json:"output_tokens"`
	CostUSD      float64 `json:"cost_usd"`
	CostUnknown  int64   `json:"cost_unknown,omitempty"`
}

// ProcessCount is one program that was started in the guest.
type ProcessCount struct {
	// Exe is the program, Count how often it was started.
	Exe   string `json:"exe"`
	Count int64  `json:"count"`
	// First and Last are when.
	First string `json:"first"`
	Last  string `json:"last"`
}

// RecordProblem is one thing that is wrong with a record.
type RecordProblem struct {
	// Table and Row say which row, Seq its place in the chain; zero where that is not known.
	Table string `json:"table,omitempty"`
	Row   int64  `json:"row,omitempty"`
	// Seq is its place in the chain.
	Seq int64 `json:"seq,omitempty"`
	// What is wrong: "changed", "removed", "added", "reordered", "truncated", "head", "schema", "session", "file".
	What string `json:"what"`
	// Detail says it in words.
	Detail string `json:"detail"`
}

// String is the problem in one line.
func (p RecordProblem) String() string {
	switch {
	case p.Table != "" && p.Seq > 0:
		return fmt.Sprintf("%s row %d (link %d): %s", p.Table, p.Row, p.Seq, p.Detail)
	case p.Table != "":
		return fmt.Sprintf("%s row %d: %s", p.Table, p.Row, p.Detail)
	case p.Seq > 0:
		return fmt.Sprintf("link %d: %s", p.Seq, p.Detail)
	}
	return p.Detail
}

// VerifyReport is what checking a record found.
type VerifyReport struct {
	// Session is whose record it says it is.
	Session string `json:"session"`
	// Rows are linked, the first Signed of them under a good signature. The rest is not yet signed: after a crash that is a
	// few seconds' worth.
	Rows int64 `json:"rows"`
	// Signed is how many rows the last good head covers.
	Signed int64 `json:"signed"`
	// Heads were checked.
	Heads int `json:"heads"`
	// Lost events were counted by the writer when it could not keep them.
	Lost int64 `json:"lost"`
	// Problems are the first of those found; ProblemCount counts all.
	Problems []RecordProblem `json:"problems"`
	// ProblemCount counts all problems.
	ProblemCount int `json:"problem_count"`
}

// OK reports whether nothing is wrong.
func (r *VerifyReport) OK() bool { return r.ProblemCount == 0 }

// SessionsReply is a list of sessions, newest first.
type SessionsReply struct {
	Sessions []Session `json:"sessions"`
}

// InspectRequest is one reading SQL statement.
type InspectRequest struct {
	SQL string `json:"sql"`
}

// InspectReply is its answer: at most 10,000 rows.
type InspectReply struct {
	// Columns are the names of the columns.
	Columns []string `json:"columns"`
	// Rows hold one value per column: null, a number, a text, or bytes in base64.
	Rows [][]any `json:"rows"`
	// Truncated says that there is more than the limits allow.
	Truncated bool `json:"truncated,omitempty"`
}

// ProcessesReply is the programs that were started in a guest, the most frequent first.
type ProcessesReply struct {
	Processes []ProcessCount `json:"processes"`
}

// StatsReply sums up all sessions that the index knows.
type StatsReply struct {
	// Global sums up all of them, Domains, Models, First and Last left out.
	Global RecordTotals `json:"global"`
	// Count is how many there are, Sessions the newest 100.
	Count    int       `json:"count"`
	Sessions []Session `json:"sessions"`
}

// PolicyRulesRequest adds rules to the owner's policy.
type PolicyRulesRequest struct {
	// Rules are [[rule]] tables as in policy.toml. Before is the rule there that they are put in front of; empty is at the end.
	Rules  string `json:"rules"`
	Before string `json:"before,omitempty"`
}

// SuggestReply is rules that would have allowed what was refused in a session.
type SuggestReply struct {
	// Policy is their text; empty when there are none. Rules counts them.
	Policy string `json:"policy"`
	Rules  int    `json:"rules"`
}
