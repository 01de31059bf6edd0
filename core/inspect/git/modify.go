// Package git is the modifier that judges git over HTTPS: by repository, operation and, for pushes, by each command and the pack's size,
// before anything of a push goes to its host. What is refused is answered as git's own servers would, so that git shows the rule and fails.
//
// Whether an update follows on what is there cannot be told from the command. Where the policy treats a forced update more severely, the commits of
// the pack are read as it passes: if they do not lead from the new commit to the old one, the update may be forced, and is taken for that. The
// end of the pack is held back until that is known, and a server takes no pack without its end.
//
// Where the policy has rules about paths, the trees of the pack are read too, and compared with those of what it stands on, which the host is asked for
// (see files). Contents of files are not looked at. What cannot be told is taken for a change of any path.
package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"capsem/core/detect/pipe"
	"capsem/core/inspect/gitwire"
	"capsem/core/mitm/flow"
	"capsem/core/policy"
)

// Config is what the modifier needs.
type Config struct {
	// Policy is the policy in force.
	Policy func() *policy.Policy
	// Ask waits for the owner's answer; without it what asks is refused.
	Ask func(ctx context.Context, f *flow.Flow, rule, reason string) bool
	// Fetch sends a request to the host of the request whose context it has, as the guest could; without it no rule about paths is met.
	Fetch func(req *http.Request) (*http.Response, error)
}

// Modifier judges requests of git.
type Modifier struct {
	cfg Config
	// reading has a place for each pack that is looked through: the objects of one may take a few hundred MB.
	reading chan struct{}

	mu sync.Mutex
	// agreed is what the owner has agreed to lately: a fetch takes several requests.
	agreed map[string]time.Time
}

const (
	// agreedTime is how long the owner's answer holds for the same again, maxAgreed how many are remembered.
	agreedTime = 2 * time.Minute
	maxAgreed  = 256
	// maxDrain is how much of a push is read to its end after it was refused: git shows an answer only after it has sent everything.
	maxDrain = 1 << 30
	// maxReading is how many packs are looked through at once; others wait.
	maxReading = 2
)

// New makes a modifier.
func New(cfg Config) *Modifier {
	return &Modifier{cfg: cfg, reading: make(chan struct{}, maxReading), agreed: map[string]time.Time{}}
}

// pass is one request.
type pass struct {
	m   *Modifier
	ctx context.Context //nolint:containedctx // of the request
	f   *flow.Flow
	p   *policy.Policy
	e   endpoint
}

// ModifyRequest lets a request pass that the git rules allow, or that is none of git's.
func (m *Modifier) ModifyRequest(req *http.Request) error {
	f := flow.From(req.Context())
	if f == nil {
		return errors.New("judge git: the request has no flow")
	}
	now := m.cfg.Policy()
	if !now.HasGit() || !speaks(now, f.Host) {
		return nil
	}
	e, bad := readEndpoint(req)
	p := &pass{m: m, ctx: req.Context(), f: f, p: now, e: e}
	switch {
	case bad != "":
		return p.plain(policy.Verdict{RuleID: policy.RuleMalformed, Reason: "git: " + bad})
	case e.place == elsewhere:
		return nil
	case e.place == refs:
		return p.list()
	case e.place == uploadPack:
		return p.fetch(req)
	case e.place == receivePack:
		return p.push(req)
	case e.place == lfsBatch:
		return p.batch(req)
	}
	return p.lfs(req)
}

// speaks reports whether there are git rules about a host.
func speaks(p *policy.Policy, host string) bool {
	for _, op := range []string{policy.GitClone, policy.GitFetch, policy.GitPush} {
		if v := p.Git(&policy.GitRequest{Host: host, Ops: []string{op}}); v.RuleID != "" {
			return true
		}
	}
	return false
}

// judge asks the policy.
func (p *pass) judge(ops []string, ref, kind string, pack int64) policy.Verdict {
	return p.p.Git(&policy.GitRequest{Host: p.f.Host, Repo: p.e.repo, Ops: ops, Ref: ref, Kind: kind, Pack: pack})
}

// asked settles a verdict that asks: it reports whether the owner agrees.
func (p *pass) asked(v policy.Verdict, what string) bool {
	if p.m.cfg.Ask == nil {
		return false
	}
	key := strings.Join([]string{v.RuleID, p.f.Host, p.e.repo, what}, "\x00")
	p.m.mu.Lock()
	until, known := p.m.agreed[key]
	p.m.mu.Unlock()
	if known && time.Now().Before(until) {
		return true
	}
	reason := fmt.Sprintf("git %s %s/%s", what, p.f.Host, p.e.repo)
	if v.Reason != "" {
		reason += ": " + v.Reason
	}
	if !p.m.cfg.Ask(p.ctx, p.f, v.RuleID, reason) {
		return false
	}
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if len(p.m.agreed) >= maxAgreed {
		clear(p.m.agreed)
	}
	p.m.agreed[key] = time.Now().Add(agreedTime)
	return true
}

// because is a verdict in the words of a refusal.
func because(v policy.Verdict) string {
	reason := v.Reason
	if reason == "" {
		reason = "this is not allowed"
	}
	if v.Effect == policy.Ask {
		reason += " (the owner did not agree)"
	}
	return "capsem: " + v.RuleID + ": " + reason
}

// answer is a refusal in a form that git reads.
func (p *pass) answer(v policy.Verdict, kind string, body []byte) *flow.Refusal {
	return &flow.Refusal{
		Status: http.StatusOK, Body: body, Rule: v.RuleID, Reason: strings.TrimPrefix(because(v), "capsem: "+v.RuleID+": "),
		Header: http.Header{"Content-Type": {"application/x-" + kind}, "Cache-Control": {"no-cache"}, "X-Capsem-Rule": {v.RuleID}},
	}
}

// plain is a refusal of what git has no form for.
func (p *pass) plain(v policy.Verdict) *flow.Refusal {
	r := p.answer(v, "", []byte(because(v)+"\n"))
	r.Status = http.StatusForbidden
	r.Header.Set("Content-Type", "text/plain; charset=utf-8")
	return r
}

// list judges a request for the refs. What asks is asked about when it is clearer what it is.
func (p *pass) list() error {
	v := p.judge(p.e.ops(), "", "", 0)
	switch {
	case v.Effect != policy.Deny:
		return nil
	case p.e.service == "":
		return p.plain(v)
	}
	return p.answer(v, p.e.service+"-advertisement", gitwire.Advertisement(p.e.service, because(v)))
}

// fetch judges a request for a pack.
func (p *pass) fetch(req *http.Request) error {
	clone, fetch := p.judge([]string{policy.GitClone}, "", "", 0), p.judge([]string{policy.GitFetch}, "", "", 0)
	v, op := clone, policy.GitClone
	if clone.RuleID != fetch.RuleID {
		if err := p.decode(req); err != nil {
			return err
		}
		have, raw, err := gitwire.ReadFetch(req.Body)
		if err != nil {
			return p.answer(malformed(err), upload+"-result", gitwire.Error(because(malformed(err))))
		}
		putBack(req, raw)
		if have {
			v, op = fetch, policy.GitFetch
		}
	}
	if v.Effect == policy.Allow || v.Effect == policy.Ask && p.asked(v, op) {
		return nil
	}
	p.drain(req.Body)
	return p.answer(v, upload+"-result", gitwire.Error(because(v)))
}

func malformed(err error) policy.Verdict {
	return policy.Verdict{Effect: policy.Deny, RuleID: policy.RuleMalformed, Reason: err.Error()}
}

// decode undoes the encoding of a request's body: it goes on as it was judged.
func (p *pass) decode(req *http.Request) error {
	if req.Body == nil {
		req.Body = http.NoBody
	}
	if len(req.Header["Content-Encoding"]) == 0 {
		return nil
	}
	encoding := pipe.Encoding(req.Header)
	if encoding == "" {
		return p.plain(policy.Verdict{RuleID: policy.RuleMalformed, Reason: "git: the body is in an encoding that cannot be undone"})
	}
	plain, err := pipe.Decode(encoding, req.Body)
	if err != nil {
		return fmt.Errorf("judge git: %w", err)
	}
	req.Body = &body{plain, closer(plain.Closing(req.Body.Close))}
	req.ContentLength = -1
	req.Header.Del("Content-Encoding")
	req.Header.Del("Content-Length")
	return nil
}

// body reads from one place and closes another.
type body struct {
	io.Reader
	io.Closer
}

// closer is a close.
type closer func() error

// Close closes.
func (c closer) Close() error { return c() }

// putBack has what was read of a body read again.
func putBack(req *http.Request, raw []byte) {
	req.Body = &body{io.MultiReader(strings.NewReader(string(raw)), req.Body), req.Body}
}

// drain reads what is left of a body that was refused.
func (p *pass) drain(src io.Reader) {
	_, _ = io.CopyN(io.Discard, src, maxDrain)
}
