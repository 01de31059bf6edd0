package service

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"capsem/core/credential"
	"capsem/core/fault"
	"capsem/core/mcp"
	"capsem/core/proto"
)

// renewPause is the least between two renewals of a token because its server has refused it: a server could refuse each.
const renewPause = time.Minute

// refusedTokens are the tokens of sign-ins that servers have refused, by the names of their secrets.
type refusedTokens struct {
	mu sync.Mutex
	// marks are those of tokens for which there is no next one, tried when the last was tried to be got.
	marks map[string]string
	tried map[string]time.Time
}

// newlyRefused are the tokens that a worker asks about anew.
func newlyRefused(old, now []proto.RefusedToken) []proto.RefusedToken {
	var out []proto.RefusedToken
	for _, t := range now[:min(len(now), proto.MaxGrants)] {
		if mcp.IsLogin(t.Name) && !slices.Contains(old, t) {
			out = append(out, t)
		}
	}
	return out
}

// may reports whether a token may be renewed now, and notes that it is.
func (r *refusedTokens) may(name string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, there := r.tried[name]; there && now.Sub(last) < renewPause {
		return false
	}
	if r.tried == nil {
		r.tried, r.marks = map[string]time.Time{}, map[string]string{}
	}
	r.tried[name] = now
	return true
}

// note notes whether there is no next token.
func (r *refusedTokens) note(name, mark string, none bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if none && r.marks != nil {
		r.marks[name] = mark
	} else {
		delete(r.marks, name)
	}
}

// without are the marks of those of the given tokens for which there is no next one.
func (r *refusedTokens) without(values map[string]proto.Secret) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := maps.Clone(r.marks)
	maps.DeleteFunc(out, func(name, mark string) bool { return mcp.Mark(string(values[name])) != mark })
	return out
}

// renewRefused gets the next token for one that its server has refused, and tells the workers, also that there is none.
func (s *Service) renewRefused(ctx context.Context, t proto.RefusedToken) {
	is := func(value string) bool { return mcp.Mark(value) == t.Mark }
	e, err := s.secrets.Get(t.Name)
	switch {
	case err == nil && (e.Token == nil || e.Token.Client != credential.ClientServer):
		return // no worker has such a one from us
	case err == nil && is(e.Value) && !s.refused.may(t.Name, time.Now()):
		err = fault.New(fault.LimitReached, "it was renewed less than %s ago", renewPause)
	case err == nil:
		err = s.secrets.RenewRefused(ctx, s.providers(), time.Now(), t.Name, is)
	}
	if err != nil && ctx.Err() == nil {
		s.log.Warn("a server refuses its sign-in, and there is no next token", "secret", t.Name, "error", fault.Line(err))
	}
	s.refused.note(t.Name, t.Mark, err != nil)
	s.tellAll(ctx)
}
