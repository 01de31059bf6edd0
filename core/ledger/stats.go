package ledger

import (
	"context"
	"errors"
	"fmt"

	"capsem/core/store"
)

// topDomains is how many names Stats lists.
const topDomains = 20

// Stats sums up the record at path.
func Stats(ctx context.Context, path string) (Totals, error) {
	r, err := store.OpenReader(ctx, path)
	if err != nil {
		return Totals{}, err //nolint:wrapcheck // says what it did
	}
	t, err := totals(ctx, r)
	if err != nil {
		err = fmt.Errorf("sum up record: %w", store.Explain(err, path))
	}
	return t, errors.Join(err, r.Close())
}

func totals(ctx context.Context, r *store.Reader) (Totals, error) {
	t := Totals{Domains: []DomainCount{}}
	for _, q := range []struct {
		text string
		into []any
	}{
		{
			`SELECT count(*), count(*) FILTER (WHERE decision='allowed'), count(*) FILTER (WHERE decision='denied'),
			count(*) FILTER (WHERE decision='error'), coalesce(sum(bytes_sent),0), coalesce(sum(bytes_received),0) FROM net_events`,
			[]any{&t.Requests, &t.Allowed, &t.Denied, &t.Errors, &t.BytesSent, &t.BytesReceived},
		},
		{"SELECT count(*), count(*) FILTER (WHERE decision='denied') FROM dns_events", []any{&t.DNSQueries, &t.DNSDenied}},
		{`SELECT count(*), coalesce(sum(input_tokens),0), coalesce(sum(output_tokens),0), coalesce(sum(estimated_cost_usd),0.0),
			count(*) FILTER (WHERE estimated_cost_usd IS NULL) FROM model_calls`, []any{&t.ModelCalls, &t.InputTokens, &t.OutputTokens, &t.CostUSD, &t.CostUnknown}},
		{"SELECT count(*) FROM tool_calls", []any{&t.ToolCalls}},
		{"SELECT count(*) FROM mcp_calls", []any{&t.MCPCalls}},
		{"SELECT count(*) FROM fs_events", []any{&t.FileEvents}},
		{"SELECT count(*) FROM snapshot_events", []any{&t.Snapshots}},
		{"SELECT count(*) FROM exec_events", []any{&t.Execs}},
		{"SELECT count(*) FROM audit_events", []any{&t.AuditEvents}},
		{"SELECT count(*) FROM approvals", []any{&t.Approvals}},
		{"SELECT coalesce(sum(count),0) FROM drop_events", []any{&t.Lost}},
		{"SELECT coalesce(max(seq),0) FROM chain", []any{&t.Rows}},
	} {
		if err := r.DB().QueryRowContext(ctx, q.text).Scan(q.into...); err != nil {
			return t, err //nolint:wrapcheck // by the caller
		}
	}
	if err := span(ctx, r, &t); err != nil {
		return t, err
	}
	if err := models(ctx, r, &t); err != nil {
		return t, err
	}
	err := domains(ctx, r, &t)
	return t, err
}

// models sums up each model that was called, the most frequent first.
func models(ctx context.Context, r *store.Reader, t *Totals) error {
	rows, err := r.DB().QueryContext(ctx, `SELECT coalesce(provider,''), coalesce(model,''), count(*) AS n, coalesce(sum(input_tokens),0),
		coalesce(sum(output_tokens),0), coalesce(sum(estimated_cost_usd),0.0), count(*) FILTER (WHERE estimated_cost_usd IS NULL)
		FROM model_calls GROUP BY provider, model ORDER BY n DESC, model LIMIT ?`, topDomains)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	defer rows.Close()
	for rows.Next() {
		var m ModelCount
		if err := rows.Scan(&m.Provider, &m.Model, &m.Calls, &m.InputTokens, &m.OutputTokens, &m.CostUSD, &m.CostUnknown); err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		t.Models = append(t.Models, m)
	}
	return rows.Err() //nolint:wrapcheck // by the caller
}

// span finds the first and the last time in any table; each table answers from its index.
func span(ctx context.Context, r *store.Reader, t *Totals) error {
	version, err := store.Version(ctx, r.DB())
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	for i := range tables {
		if !tables[i].timed() || tables[i].since > version {
			continue
		}
		var first, last string
		err := r.DB().QueryRowContext(ctx, "SELECT coalesce((SELECT min(timestamp) FROM "+tables[i].name+"),''), coalesce((SELECT max(timestamp) FROM "+
			tables[i].name+"),'')").Scan(&first, &last)
		if err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		if first != "" && (t.First == "" || first < t.First) {
			t.First = first
		}
		t.Last = max(t.Last, last)
	}
	return nil
}

func domains(ctx context.Context, r *store.Reader, t *Totals) error {
	rows, err := r.DB().QueryContext(ctx, `SELECT domain, count(*) AS n, count(*) FILTER (WHERE decision='denied') FROM net_events
		WHERE domain IS NOT NULL GROUP BY domain ORDER BY n DESC, domain LIMIT ?`, topDomains)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	defer rows.Close()
	for rows.Next() {
		var d DomainCount
		if err := rows.Scan(&d.Domain, &d.Requests, &d.Denied); err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		t.Domains = append(t.Domains, d)
	}
	return rows.Err() //nolint:wrapcheck // by the caller
}

// Processes lists the programs started in the guest, the most frequent first, at most MaxPage.
func Processes(ctx context.Context, path string) ([]ProcessCount, error) {
	r, err := store.OpenReader(ctx, path)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	out, err := processes(ctx, r)
	if err != nil {
		err = fmt.Errorf("list processes: %w", store.Explain(err, path))
	}
	return out, errors.Join(err, r.Close())
}

func processes(ctx context.Context, r *store.Reader) ([]ProcessCount, error) {
	rows, err := r.DB().QueryContext(ctx, `SELECT exe, count(*) AS n, min(timestamp), max(timestamp) FROM audit_events
		WHERE exe IS NOT NULL GROUP BY exe ORDER BY n DESC, exe LIMIT ?`, MaxPage)
	if err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	defer rows.Close()
	out := []ProcessCount{}
	for rows.Next() {
		var p ProcessCount
		if err := rows.Scan(&p.Exe, &p.Count, &p.First, &p.Last); err != nil {
			return nil, err //nolint:wrapcheck // by the caller
		}
		out = append(out, p)
	}
	return out, rows.Err() //nolint:wrapcheck // by the caller
}

// Inspect runs one reading statement of the owner's against the record at path: at most 10,000 rows and 5 seconds.
func Inspect(ctx context.Context, path, query string) (store.Result, error) {
	return store.Inspect(ctx, path, query) //nolint:wrapcheck // says what it did
}
