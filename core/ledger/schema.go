package ledger

import (
	_ "embed"
	"strings"

	"capsem/core/store"
)

//go:embed schema_v1.sql
var schemaV1 string

//go:embed schema_v2.sql
var schemaV2 string

//go:embed schema_v3.sql
var schemaV3 string

// schema makes a session.db. Entries are only added, and a column is only ever added at the end of its table and may be NULL:
// then the rows that were chained before keep their hashes (see canonical).
var schema = store.Schema{schemaV1, schemaV2, schemaV3}

// SchemaText is the SQL that makes a session.db, for whoever wants to ask one.
func SchemaText() string { return strings.Join(schema, "\n") }

// The chained tables.
const (
	netTable = iota
	dnsTable
	modelTable
	toolTable
	toolResponseTable
	mcpTable
	fileTable
	snapshotTable
	execTable
	auditTable
	approvalTable
	lifecycleTable
	dropTable
	substitutionTable
	detectionTable
	tableCount
)

// table is one chained table.
type table struct {
	// name in the database; kind is what users call it.
	name, kind string
	// columns after id, in the order of the schema.
	columns []string
	// search are the columns that History looks into, and decision the one that says allow or deny.
	search   []string
	decision string
	// since is the version of the schema that it came with, when that is not the first.
	since int
	// bulk says that its rows are many and small, and no longer kept when the record has reached its size.
	bulk bool
	// private columns are left out of log lines: content, and long.
	private []string
}

// timed reports whether rows have a time of their own; those that have none belong to a row that has.
func (t *table) timed() bool { return t.columns[0] == timestampColumn }

const timestampColumn = "timestamp"

func columns(list string) []string { return strings.Fields(list) }

var tables = [tableCount]table{
	netTable: {
		name: "net_events", kind: "net", decision: "decision",
		columns: columns("timestamp domain port decision process_name pid method path query status_code bytes_sent bytes_received duration_ms " +
			"matched_rule request_headers response_headers request_body_preview response_body_preview conn_type reason error ask_id credential " +
			"remote_addr command_line parents"),
		search:  columns("domain path process_name matched_rule"),
		private: columns("request_headers response_headers request_body_preview response_body_preview query"),
	},
	dnsTable: {
		name: "dns_events", kind: "dns", decision: "decision",
		columns: columns("timestamp name query_type decision matched_rule reason response_code answer transport process_name pid duration_ms error"),
		search:  columns("name process_name matched_rule"),
	},
	modelTable: {
		name: "model_calls", kind: "model",
		columns: columns("timestamp provider model process_name pid method path stream system_prompt_preview messages_count tools_count " +
			"request_bytes request_body_preview message_id status_code text_content thinking_content stop_reason input_tokens output_tokens " +
			"duration_ms response_bytes estimated_cost_usd trace_id usage_details"),
		search:  columns("provider model path text_content"),
		private: columns("system_prompt_preview request_body_preview text_content thinking_content usage_details"),
	},
	toolTable: {
		name: "tool_calls", kind: "tool",
		columns: columns("model_call_id call_index call_id tool_name arguments origin mcp_call_id"),
		private: columns("arguments"),
	},
	toolResponseTable: {
		name: "tool_responses", kind: "tool_response",
		columns: columns("model_call_id call_id content_preview is_error"),
		private: columns("content_preview"),
	},
	mcpTable: {
		name: "mcp_calls", kind: "mcp", decision: "decision",
		columns: columns("timestamp server_name method tool_name request_id request_preview response_preview decision duration_ms " +
			"error_message process_name bytes_sent bytes_received matched_rule pid ask_id"),
		search:  columns("server_name method tool_name error_message"),
		private: columns("request_preview response_preview"),
	},
	fileTable: {
		name: "fs_events", kind: "file", bulk: true,
		columns: columns("timestamp action path size pid"), search: columns("path"),
	},
	snapshotTable: {
		name: "snapshot_events", kind: "snapshot",
		columns: columns("timestamp slot origin name files_count start_fs_event_id stop_fs_event_id"), search: columns("name"),
	},
	execTable: {
		name: "exec_events", kind: "exec",
		columns: columns("timestamp exec_id command exit_code duration_ms stdout_preview stderr_preview stdout_bytes stderr_bytes source " +
			"mcp_call_id trace_id process_name pid"),
		search: columns("command"), private: columns("stdout_preview stderr_preview command"),
	},
	auditTable: {
		name: "audit_events", kind: "audit", bulk: true,
		columns: columns("timestamp pid ppid uid exe comm argv cwd exit_code session_id tty audit_id exec_event_id parent_exe"),
		search:  columns("exe argv"), private: columns("argv"),
	},
	approvalTable: {
		name: "approvals", kind: "approval", decision: "status",
		columns: columns("timestamp ask_id status scope matched_rule reason process_name pid command_line method url size answered_by waited_ms"),
		search:  columns("url process_name matched_rule"), private: columns("command_line"),
	},
	lifecycleTable: {
		name: "lifecycle_events", kind: "lifecycle",
		columns: columns("timestamp event detail duration_ms"), search: columns("event detail"),
	},
	dropTable: {
		name: "drop_events", kind: "drop",
		columns: columns("timestamp kind count first_at last_at reason"), search: columns("kind reason"),
	},
	substitutionTable: {
		name: "substitution_events", kind: "substitution", decision: "action", since: 2,
		columns: columns("timestamp action credential kind domain place form process_name pid"), search: columns("credential domain place"),
	},
	detectionTable: {
		name: "detection_events", kind: "detection", decision: "outcome", since: 2,
		columns: columns("timestamp detector rule outcome domain place process_name pid"), search: columns("detector rule domain"),
	},
}

// tableNamed finds a table by its name in the database.
func tableNamed(name string) (int, bool) {
	for i := range tables {
		if tables[i].name == name {
			return i, true
		}
	}
	return 0, false
}

// Kinds are the names under which History filters.
func Kinds() []string {
	out := make([]string, 0, len(tables))
	for i := range tables {
		if tables[i].timed() {
			out = append(out, tables[i].kind)
		}
	}
	return out
}
