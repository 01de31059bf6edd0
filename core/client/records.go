package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"capsem/core/api"
)

// Sessions lists the newest sessions.
func (c *Client) Sessions(ctx context.Context) (api.SessionsReply, error) {
	return call[api.SessionsReply](ctx, c, http.MethodGet, "/sessions", nil)
}

// History is what happened in a session; query is that of GET /history/{id}.
func (c *Client) History(ctx context.Context, id string, query url.Values) (api.HistoryPage, error) {
	return call[api.HistoryPage](ctx, c, http.MethodGet, escape("history", id)+"?"+query.Encode(), nil)
}

// Inspect answers one reading SQL statement about a session's record.
func (c *Client) Inspect(ctx context.Context, id, query string) (api.InspectReply, error) {
	return call[api.InspectReply](ctx, c, http.MethodPost, escape("inspect", id), api.InspectRequest{SQL: query})
}

// Export is a session's record in a format of other tools, with follow as it grows; the caller closes it.
func (c *Client) Export(ctx context.Context, id, format string, follow bool) (io.ReadCloser, error) {
	query := url.Values{"format": {format}}
	if follow {
		query.Set("follow", "1")
	}
	return c.body(ctx, http.MethodGet, escape("export", id)+"?"+query.Encode(), nil)
}

// Verify checks a session's record.
func (c *Client) Verify(ctx context.Context, id string) (api.VerifyReport, error) {
	return call[api.VerifyReport](ctx, c, http.MethodGet, escape("verify", id), nil)
}

// Stats sums all sessions up.
func (c *Client) Stats(ctx context.Context) (api.StatsReply, error) {
	return call[api.StatsReply](ctx, c, http.MethodGet, "/stats", nil)
}

// SessionStats sums one session up.
func (c *Client) SessionStats(ctx context.Context, id string) (api.RecordTotals, error) {
	return call[api.RecordTotals](ctx, c, http.MethodGet, escape("stats", id), nil)
}

// SuggestPolicy is the narrowest rules that would have allowed what was refused in a session, as policy text; empty when there are none.
func (c *Client) SuggestPolicy(ctx context.Context, id string) (string, error) {
	reply, err := call[api.SuggestReply](ctx, c, http.MethodGet, escape("policy", "suggest", id), nil)
	return reply.Policy, err
}
