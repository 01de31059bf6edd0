package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"capsem/core/fault"
	"capsem/core/store"
)

// ValidSession reports whether an id may be a name on disk: letters, digits and dashes.
func ValidSession(id string) bool {
	if id == "" || len(id) > 64 || id[0] == '-' {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

const sessionColumns = `id, coalesce(name,''), coalesce(mode,''), coalesce(command,''), status, created_at, coalesce(stopped_at,''),
	coalesce(scratch_disk_size_gb,0), coalesce(ram_bytes,0), coalesce(storage_mode,''), coalesce(rootfs_hash,''), coalesce(rootfs_version,''),
	coalesce(forked_from,''), persistent, total_requests, allowed_requests, denied_requests, bytes_sent, bytes_received, dns_queries,
	total_input_tokens, total_output_tokens, total_estimated_cost, total_tool_calls, total_mcp_calls, total_file_events, exec_count,
	audit_event_count, lost_events, total_rows, db_bytes, head_seq, head_hash`

// Sessions lists the newest sessions first, at most limit, and only those in a state if one is given.
func (x *Index) Sessions(ctx context.Context, status string, limit int) ([]Session, error) {
	if limit <= 0 || limit > MaxPage {
		return nil, fault.New(fault.OutOfRange, "a list has 1 to %d sessions", MaxPage)
	}
	return x.sessions(ctx, "WHERE ?='' OR status=? ORDER BY created_at DESC, id DESC LIMIT ?", status, status, limit)
}

// Session returns one session.
func (x *Index) Session(ctx context.Context, id string) (Session, error) {
	out, err := x.sessions(ctx, "WHERE id=?", id)
	if err == nil && len(out) == 0 {
		err = fault.New(fault.NotFound, "there is no session %q", Clean(id, 100))
	}
	if err != nil {
		return Session{}, err
	}
	return out[0], nil
}

func (x *Index) sessions(ctx context.Context, tail string, args ...any) ([]Session, error) {
	out := []Session{}
	err := x.update(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, "SELECT "+sessionColumns+" FROM sessions "+tail, args...) //nolint:gosec // tail is one of our own texts
		if err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		defer rows.Close()
		for rows.Next() {
			s, err := scanSession(rows)
			if err != nil {
				return err
			}
			out = append(out, s)
		}
		return rows.Err() //nolint:wrapcheck // by the caller
	})
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return out, nil
}

func scanSession(rows *sql.Rows) (Session, error) {
	var s Session
	var created, stopped string
	var hash []byte
	t := &s.Totals
	err := rows.Scan(&s.ID, &s.Name, &s.Mode, &s.Command, &s.Status, &created, &stopped, &s.DiskGB, &s.RAM, &s.Storage, &s.RootfsHash, &s.RootfsVersion,
		&s.ForkedFrom, &s.Persistent, &t.Requests, &t.Allowed, &t.Denied, &t.BytesSent, &t.BytesReceived, &t.DNSQueries, &t.InputTokens, &t.OutputTokens,
		&t.CostUSD, &t.ToolCalls, &t.MCPCalls, &t.FileEvents, &t.Execs, &t.AuditEvents, &t.Lost, &t.Rows, &s.DBBytes, &s.HeadSeq, &hash)
	if err != nil {
		return s, err //nolint:wrapcheck // by the caller
	}
	if s.Created, err = time.Parse(TimeFormat, created); err != nil {
		return s, err //nolint:wrapcheck // by the caller
	}
	if stopped != "" {
		if s.Stopped, err = time.Parse(TimeFormat, stopped); err != nil {
			return s, err //nolint:wrapcheck // by the caller
		}
	}
	if len(hash) == hashSize {
		s.HeadHash = Hash(hash)
	}
	return s, nil
}

// Refresh sums up the record at path again, and remembers its last signed head.
func (x *Index) Refresh(ctx context.Context, id, path string) error {
	sum, err := sumUp(ctx, path)
	if err != nil {
		return err
	}
	err = x.update(ctx, func(tx *sql.Tx) error {
		t := &sum.totals
		done, err := tx.ExecContext(ctx, `UPDATE sessions SET total_requests=?, allowed_requests=?, denied_requests=?, bytes_sent=?, bytes_received=?,
			dns_queries=?, total_input_tokens=?, total_output_tokens=?, total_estimated_cost=?, total_tool_calls=?, total_mcp_calls=?,
			total_file_events=?, exec_count=?, audit_event_count=?, lost_events=?, total_rows=?, db_bytes=?, head_seq=?, head_hash=? WHERE id=?`,
			t.Requests, t.Allowed, t.Denied, t.BytesSent, t.BytesReceived, t.DNSQueries, t.InputTokens, t.OutputTokens, t.CostUSD, t.ToolCalls, t.MCPCalls,
			t.FileEvents, t.Execs, t.AuditEvents, t.Lost, t.Rows, sum.bytes, int64(sum.head.Seq), sum.head.Hash[:], id) //nolint:gosec // a count
		if err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		if n, err := done.RowsAffected(); err != nil || n != 1 {
			return errors.Join(fault.New(fault.NotFound, "there is no session %q", id), err)
		}
		return sum.writeUsage(ctx, tx, id)
	})
	if err != nil {
		return fmt.Errorf("sum up session: %w", err)
	}
	return nil
}

// summary is what main.db keeps of a record.
type summary struct {
	totals Totals
	head   Head
	bytes  int64
	usage  [3][][]any
}

// usages sums up, per name, what ai_usage, tool_usage and mcp_usage keep. Names are bounded in number.
var usages = [3]struct{ read, table string }{
	{`SELECT provider, count(*), coalesce(sum(input_tokens),0), coalesce(sum(output_tokens),0), coalesce(sum(estimated_cost_usd),0.0),
		coalesce(sum(duration_ms),0) FROM model_calls WHERE provider IS NOT NULL GROUP BY provider ORDER BY 2 DESC LIMIT 500`, "ai_usage"},
	{`SELECT tool_name, count(*), coalesce(sum(length(arguments)),0), 0 FROM tool_calls WHERE tool_name IS NOT NULL
		GROUP BY tool_name ORDER BY 2 DESC LIMIT 500`, "tool_usage"},
	{`SELECT server_name, coalesce(tool_name, method, ''), count(*), coalesce(sum(bytes_sent+bytes_received),0), coalesce(sum(duration_ms),0)
		FROM mcp_calls WHERE server_name IS NOT NULL GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 500`, "mcp_usage"},
}

func sumUp(ctx context.Context, path string) (*summary, error) {
	r, err := store.OpenReader(ctx, path)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	s := &summary{}
	err = func() error {
		if s.totals, err = totals(ctx, r); err != nil {
			return err
		}
		h, err := lastHead(ctx, r.DB(), "")
		if err != nil {
			return err
		}
		if h != nil {
			s.head = *h
		}
		for i, u := range usages {
			if s.usage[i], err = readAll(ctx, r.DB(), u.read); err != nil {
				return err
			}
		}
		info, err := os.Stat(path)
		if err == nil {
			s.bytes = info.Size()
		}
		return err //nolint:wrapcheck // by the caller
	}()
	if err != nil {
		err = fmt.Errorf("sum up record: %w", store.Explain(err, path))
	}
	return s, errors.Join(err, r.Close())
}

func readAll(ctx context.Context, q store.Queryer, text string) ([][]any, error) {
	rows, err := q.QueryContext(ctx, text)
	if err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	return scanAll(rows, len(names))
}

// scanAll reads rows of any values.
func scanAll(rows *sql.Rows, columns int) ([][]any, error) {
	var out [][]any
	for rows.Next() {
		values := make([]any, columns)
		into := make([]any, columns)
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err //nolint:wrapcheck // by the caller
		}
		out = append(out, values)
	}
	return out, rows.Err() //nolint:wrapcheck // by the caller
}

func (s *summary) writeUsage(ctx context.Context, tx *sql.Tx, id string) error {
	for i, u := range usages {
		remove := "DELETE FROM " + u.table + " WHERE session_id=?" //nolint:gosec // one of our own names
		if _, err := tx.ExecContext(ctx, remove, id); err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		for _, row := range s.usage[i] {
			args := append([]any{id}, row...)
			insert := "INSERT INTO " + u.table + " VALUES (?" + strings.Repeat(",?", len(row)) + ")" //nolint:gosec // one of our own names
			if _, err := tx.ExecContext(ctx, insert, args...); err != nil {
				return err //nolint:wrapcheck // by the caller
			}
		}
	}
	return nil
}
