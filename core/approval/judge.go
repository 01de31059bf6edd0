package approval

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"sync/atomic"

	"capsem/core/policy"
	"capsem/core/proto"
)

// Judge decides by the policy in force and holds what it asks about.
type Judge struct {
	policy atomic.Pointer[policy.Policy]
	board  *Board
}

// NewJudge makes a judge of a policy and a board.
func NewJudge(p *policy.Policy, b *Board) *Judge {
	j := &Judge{board: b}
	j.policy.Store(p)
	return j
}

// Policy is the one in force.
func (j *Judge) Policy() *policy.Policy { return j.policy.Load() }

// Reload puts another policy in force, for every request from now on and for those that are held.
func (j *Judge) Reload(p *policy.Policy) {
	j.policy.Store(p)
	j.board.Reconsider()
}

type processKey struct{}

// WithProcess says who asks what is judged under the context, for questions to show.
func WithProcess(ctx context.Context, by *proto.ProcessClaim) context.Context {
	return context.WithValue(ctx, processKey{}, by)
}

// Possible gives the mildest verdict that facts still to come could lead to, as of a connection that has said nothing yet. It holds nothing.
func (j *Judge) Possible(req *policy.Request) policy.Verdict { return j.policy.Load().Possible(req) }

// Judge decides about a request; one that the policy asks about is held until the owner has answered. The verdict is allow or deny, with
// the rule that asked; a lookup is not held, and may be an ask: then the connection will be asked about.
func (j *Judge) Judge(ctx context.Context, req *policy.Request) policy.Verdict {
	return j.hold(ctx, req, policy.Verdict{})
}

// Continue decides again about a request that is allowed and of which more is known now: the address to be dialled (req.Addr), or the size
// of the body so far. What the owner has approved for it is not asked again as long as the same rule asks.
func (j *Judge) Continue(ctx context.Context, req *policy.Request, allowed policy.Verdict) policy.Verdict {
	return j.hold(ctx, req, allowed)
}

func (j *Judge) hold(ctx context.Context, req *policy.Request, before policy.Verdict) policy.Verdict {
	v, asked := j.decide(req), before.AskID
	for v.Effect == policy.Ask && req.Scheme != "dns" {
		if before.Effect == policy.Allow && before.RuleID == v.RuleID && before.Layer == v.Layer {
			v.Effect, v.Reason = policy.Allow, before.Reason
			break
		}
		by, _ := ctx.Value(processKey{}).(*proto.ProcessClaim)
		kept := snapshot(req) // the caller may go on with its own while the policy is reloaded
		out := j.board.ask(ctx, newQuestion(kept, &v, by), func() policy.Verdict { return j.decide(kept) })
		asked = cmp.Or(out.ID, asked)
		if out.verdict == nil {
			v = settle(v, &out)
			break
		}
		v = *out.verdict
	}
	v.AskID = asked
	return v
}

func (j *Judge) decide(req *policy.Request) policy.Verdict {
	p := j.policy.Load()
	if req.Addr.IsValid() {
		return p.DecideDial(req, req.Addr)
	}
	return p.Decide(req)
}

// settle makes the verdict of an answer. All else of it stays: the rule that asked, and the ranges that it opens.
func settle(v policy.Verdict, out *Outcome) policy.Verdict {
	if out.Status == Approved {
		v.Effect, v.Reason = policy.Allow, "approved by the owner: "+out.Scope
		return v
	}
	v.Effect = policy.Deny
	v.Reason = strings.TrimPrefix(v.Reason+"; "+out.why(), "; ")
	return v
}

func snapshot(req *policy.Request) *policy.Request {
	kept := *req
	kept.Header = http.Header(req.Header).Clone()
	return &kept
}
