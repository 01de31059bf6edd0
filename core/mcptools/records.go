package mcptools

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/ledger"
)

const (
	// maxRows bounds the rows of one answer, rowBytes their JSON.
	maxRows  = 1000
	rowBytes = 256 << 10
)

// session is a parameter that names a VM or a session.
type session struct {
	ID string `json:"id" jsonschema:"the VM's name or id, or a session's id (capsem_sessions): the record outlives the VM"`
}

type historyParams struct {
	session
	Kind     string `json:"kind,omitempty" jsonschema:"only these, with commas: exec,file,net,dns,mcp,model,tool,snapshot,audit,approval,lifecycle"`
	Search   string `json:"search,omitempty" jsonschema:"only what contains this text"`
	Decision string `json:"decision,omitempty" jsonschema:"only what was allowed, denied or error"`
	Since    string `json:"since,omitempty" jsonschema:"from this time on (RFC 3339)"`
	Until    string `json:"until,omitempty" jsonschema:"up to this time (RFC 3339)"`
	After    string `json:"after,omitempty" jsonschema:"the next of the page before, for older ones"`
	Limit    int    `json:"limit,omitempty" jsonschema:"how many at most"`
}

type inspectParams struct {
	ID     string `json:"id" jsonschema:"the VM's name or id, a session's id, or _main for the index of all sessions"`
	SQL    string `json:"sql" jsonschema:"one SELECT (SQLite); capsem_inspect_schema shows the tables"`
	Offset int    `json:"offset,omitempty" jsonschema:"how many rows to leave out"`
	Limit  int    `json:"limit,omitempty" jsonschema:"how many rows at most"`
}

// rows are a part of the answer to a statement.
type rows struct {
	Columns   []string `json:"columns"`
	Rows      [][]any  `json:"rows"`
	Next      int      `json:"next_offset,omitempty" jsonschema:"the offset to go on from; absent at the end"`
	Truncated bool     `json:"truncated,omitempty" jsonschema:"the statement has more rows than can be had: narrow it"`
}

// schemaText is the tables of a record.
type schemaText struct {
	SQL string `json:"sql" jsonschema:"the statements that made the database of a session"`
}

type statsParams struct {
	ID string `json:"id,omitempty" jsonschema:"the VM's name or id, or a session's id; all sessions otherwise"`
}

// stats are sums over one session, or over all.
type stats struct {
	Session *api.RecordTotals `json:"session,omitempty"`
	All     *api.StatsReply   `json:"all,omitempty"`
}

// verdict says whether a record is as it was written.
type verdict struct {
	OK     bool             `json:"ok"`
	Report api.VerifyReport `json:"report"`
}

func (s *Server) addRecords() {
	add(s, tool{name: "capsem_sessions", title: "List sessions", does: reads, about: "Lists the sessions there were, newest first: a session is the life of one VM."},
		func(ctx context.Context, c *call, _ nothing) (api.SessionsReply, error) { return c.svc.Sessions(ctx) })
	add(s, tool{
		name: "capsem_history", title: "What happened in a VM", does: reads, defaults: map[string]any{"limit": 50},
		about: "Lists what happened in a VM, newest first: commands, files, programs, connections, decisions.",
	}, history)
	add(s, tool{
		name: "capsem_inspect_schema", title: "Tables of a record", does: reads, about: "Shows the tables that capsem_inspect can ask.",
	}, func(context.Context, *call, nothing) (schemaText, error) { return schemaText{ledger.SchemaText()}, nil })
	add(s, tool{
		name: "capsem_inspect", title: "Ask a record in SQL", does: reads, defaults: map[string]any{"limit": 200},
		about: "Answers one SELECT about the record of a VM or session.",
	}, inspect)
	add(s, tool{name: "capsem_stats", title: "Sums of a record", does: reads, about: "Sums up a session, or all: commands, requests, tokens, costs."},
		func(ctx context.Context, c *call, in statsParams) (stats, error) {
			if in.ID == "" {
				all, err := c.svc.Stats(ctx)
				return stats{All: &all}, err
			}
			one, err := c.svc.SessionStats(ctx, in.ID)
			return stats{Session: &one}, err
		})
	add(s, tool{
		name: "capsem_verify", title: "Verify a record", does: reads,
		about: "Checks that no row of a record was changed, removed, added or moved since it was written.",
	}, func(ctx context.Context, c *call, in session) (verdict, error) {
		report, err := meanwhile(ctx, c, "checking", nil, func() (api.VerifyReport, error) { return c.svc.Verify(ctx, in.ID) })
		return verdict{err == nil && report.OK(), report}, err
	})
}

func history(ctx context.Context, c *call, in historyParams) (api.HistoryPage, error) {
	if in.Limit < 1 || in.Limit > maxRows {
		return api.HistoryPage{}, fault.New(fault.OutOfRange, "limit is %d; it must be from 1 to %d", in.Limit, maxRows)
	}
	query := url.Values{}
	for name, value := range map[string]string{
		"kind": in.Kind, "search": in.Search, "decision": in.Decision, "since": in.Since, "until": in.Until, "after": in.After,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for limit := in.Limit; ; limit /= 2 { // a page may be too large: its cursor is right only for a whole page
		query.Set("limit", strconv.Itoa(limit))
		page, err := c.svc.History(ctx, in.ID, query)
		if err != nil {
			return page, err //nolint:wrapcheck // a fault
		}
		text, err := json.Marshal(page)
		if err != nil {
			return page, fmt.Errorf("encode history: %w", err)
		}
		if len(text) <= rowBytes || limit == 1 {
			return page, nil
		}
	}
}

func inspect(ctx context.Context, c *call, in inspectParams) (rows, error) {
	if in.Limit < 1 || in.Limit > maxRows || in.Offset < 0 {
		return rows{}, fault.New(fault.OutOfRange, "limit is %d and offset %d; limit must be from 1 to %d", in.Limit, in.Offset, maxRows)
	}
	reply, err := c.svc.Inspect(ctx, in.ID, in.SQL)
	if err != nil {
		return rows{}, err
	}
	out := rows{Columns: reply.Columns, Rows: [][]any{}, Truncated: reply.Truncated}
	size := 0
	for i := min(in.Offset, len(reply.Rows)); i < len(reply.Rows); i++ {
		text, err := json.Marshal(reply.Rows[i])
		if err != nil {
			return rows{}, fmt.Errorf("encode row: %w", err)
		}
		if size += len(text); len(out.Rows) == in.Limit || (size > rowBytes && len(out.Rows) > 0) {
			out.Next = i
			break
		}
		out.Rows = append(out.Rows, reply.Rows[i])
	}
	return out, nil
}
