package service

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/ledger"
)

// indexID is the id under which the index over all sessions can be inspected.
const indexID = "_main"

// statsSessions is how many sessions Stats lists.
const statsSessions = 100

// Sessions lists the newest sessions, of VMs that are there and that are gone.
func (s *Service) Sessions(ctx context.Context, status string, limit int) (api.SessionsReply, error) {
	if limit == 0 {
		limit = statsSessions
	}
	all, err := s.records.index.Sessions(ctx, status, limit)
	return api.SessionsReply{Sessions: all}, err //nolint:wrapcheck // says what it did
}

// History is what happened in a session, newest first.
func (s *Service) History(ctx context.Context, id string, f ledger.Filter) (api.HistoryPage, error) {
	path, err := s.recordOf(ctx, id)
	if err != nil {
		return api.HistoryPage{}, err
	}
	return ledger.History(ctx, path, f) //nolint:wrapcheck // says what it did
}

// Processes lists the programs that were started in a session.
func (s *Service) Processes(ctx context.Context, id string) (api.ProcessesReply, error) {
	path, err := s.recordOf(ctx, id)
	if err != nil {
		return api.ProcessesReply{}, err
	}
	all, err := ledger.Processes(ctx, path)
	if all == nil {
		all = []api.ProcessCount{}
	}
	return api.ProcessesReply{Processes: all}, err //nolint:wrapcheck // says what it did
}

// Inspect answers one reading SQL statement about a session's record, or, for "_main", the index over all.
func (s *Service) Inspect(ctx context.Context, id, query string) (api.InspectReply, error) {
	path, err := s.opts.Home.RecordIndex(), error(nil)
	if id != indexID {
		path, err = s.recordOf(ctx, id)
	}
	if err != nil {
		return api.InspectReply{}, err
	}
	r, err := ledger.Inspect(ctx, path, query)
	return api.InspectReply{Columns: r.Columns, Rows: r.Rows, Truncated: r.Truncated}, err //nolint:wrapcheck // says what it did
}

// SessionStats sums one session up.
func (s *Service) SessionStats(ctx context.Context, id string) (api.RecordTotals, error) {
	path, err := s.recordOf(ctx, id)
	if err != nil {
		return api.RecordTotals{}, err
	}
	return ledger.Stats(ctx, path) //nolint:wrapcheck // says what it did
}

// Stats sums up all sessions that the index knows, those that run as they are now.
func (s *Service) Stats(ctx context.Context) (api.StatsReply, error) {
	index := s.records.index
	running, err := index.Sessions(ctx, ledger.Running, ledger.MaxPage)
	if err != nil {
		return api.StatsReply{}, err //nolint:wrapcheck // says what it did
	}
	for _, one := range running {
		if err := index.Refresh(ctx, one.ID, s.opts.Home.RecordDB(one.ID)); err != nil && !fault.Is(err, fault.NotFound) {
			s.log.Warn("cannot sum up a session", "session", one.ID, "error", err)
		}
	}
	all, err := index.Sessions(ctx, "", ledger.MaxPage)
	if err != nil {
		return api.StatsReply{}, err //nolint:wrapcheck // says what it did
	}
	reply := api.StatsReply{Count: len(all), Sessions: all[:min(len(all), statsSessions)], Global: api.RecordTotals{Domains: []api.DomainCount{}}}
	for i := range all {
		addTotals(&reply.Global, &all[i].Totals)
	}
	return reply, nil
}

func addTotals(to, t *api.RecordTotals) {
	for _, p := range [][2]*int64{
		{&to.Requests, &t.Requests},
		{&to.Allowed, &t.Allowed},
		{&to.Denied, &t.Denied},
		{&to.Errors, &t.Errors},
		{&to.BytesSent, &t.BytesSent},
		{&to.BytesReceived, &t.BytesReceived},
		{&to.DNSQueries, &t.DNSQueries},
		{&to.DNSDenied, &t.DNSDenied},
		{&to.ModelCalls, &t.ModelCalls},
		{&to.InputTokens, &t.InputTokens},
		{&to.OutputTokens, &t.OutputTokens},
		{&to.ToolCalls, &t.ToolCalls},
		{&to.MCPCalls, &t.MCPCalls},
		{&to.FileEvents, &t.FileEvents},
		{&to.Snapshots, &t.Snapshots},
		{&to.Execs, &t.Execs},
		{&to.AuditEvents, &t.AuditEvents},
		{&to.Approvals, &t.Approvals},
		{&to.Lost, &t.Lost},
		{&to.Rows, &t.Rows},
	} {
		*p[0] += *p[1]
	}
	to.CostUSD += t.CostUSD
}

// Verify checks that nothing in a session's record was changed since it was written: against its chain, the signed heads, and the
// head that the index remembers.
func (s *Service) Verify(ctx context.Context, id string) (api.VerifyReport, error) {
	path, err := s.recordOf(ctx, id)
	if err != nil {
		return api.VerifyReport{}, err
	}
	session := filepath.Base(filepath.Dir(path))
	key, err := ledger.LoadOrCreateKey(s.opts.Home.RecordKey())
	if err != nil {
		return api.VerifyReport{}, err //nolint:wrapcheck // says what it did
	}
	public, _ := key.Public().(ed25519.PublicKey) // it is one
	want := ledger.Expect{Key: public, Session: session}
	if one, err := s.records.index.Session(ctx, session); err == nil {
		want.Seq, want.Hash = one.HeadSeq, one.HeadHash
	}
	return ledger.Verify(ctx, path, want) //nolint:wrapcheck // says what it did
}

// recordOf is where the record of a session is.
func (s *Service) recordOf(ctx context.Context, id string) (string, error) {
	session, err := s.sessionFor(ctx, id)
	if err != nil {
		return "", err
	}
	path := s.opts.Home.RecordDB(session)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return "", fault.New(fault.NotFound, "the record of session %s is gone, or was never begun", session).WithHint("capsem history lists the sessions there are")
	} else if err != nil {
		return "", fmt.Errorf("look for record: %w", err)
	}
	return path, nil
}
