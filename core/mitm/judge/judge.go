// Package judge is the modifier that asks the policy about each request: about its head before anything is sent, about its body as that
// grows, and about each address it is to be sent to. What is refused gets an answer that its sender can read.
package judge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"

	"capsem/core/mitm/flow"
	"capsem/core/policy"
)

// Policy is the policy in force, with the owner behind it.
type Policy interface {
	// Judge decides and holds what the policy asks about.
	Judge(ctx context.Context, req *policy.Request) policy.Verdict
	// Continue decides again when more is known of what was allowed.
	Continue(ctx context.Context, req *policy.Request, allowed policy.Verdict) policy.Verdict
	// Possible is the mildest verdict that facts still to come could bring. It holds nothing.
	Possible(req *policy.Request) policy.Verdict
	// Refusal is the answer to what was refused.
	Refusal(v policy.Verdict, req *policy.Request) policy.Refusal
}

// Modifier judges requests.
type Modifier struct{ policy Policy }

// New makes a modifier.
func New(p Policy) *Modifier { return &Modifier{policy: p} }

// errNoFlow is a request that did not come through the proxy.
var errNoFlow = errors.New("judge: the request has no flow")

// askedKey is where a Flow has the request that was judged, addrsKey where it goes.
type (
	askedKey struct{}
	addrsKey struct{}
)

// ModifyRequest lets a request pass that the policy allows.
func (m *Modifier) ModifyRequest(req *http.Request) error {
	f := flow.From(req.Context())
	if f == nil {
		return errNoFlow
	}
	asked := requestOf(f, req)
	v := m.policy.Judge(req.Context(), asked)
	f.SetVerdict(v)
	if v.Effect != policy.Allow {
		return m.refuse(v, asked)
	}
	f.Set(askedKey{}, asked)
	if req.ContentLength < 0 && v.BodyLimit >= 0 {
		req.Body = &body{ReadCloser: req.Body, m: m, ctx: req.Context(), f: f, limit: v.BodyLimit}
	}
	return nil
}

// Address decides whether an allowed request may go to an address.
func (m *Modifier) Address(ctx context.Context, f *flow.Flow, addr netip.Addr) error {
	asked, ok := f.Get(askedKey{}).(*policy.Request)
	if !ok {
		return errNoFlow
	}
	to := *asked
	to.Addr = addr
	return m.again(ctx, f, &to)
}

// Goes notes the addresses that an allowed request goes to.
func (m *Modifier) Goes(f *flow.Flow, to []netip.Addr) { f.Set(addrsKey{}, to) }

// Still reports whether the policy could still allow what was allowed before, for exchanges that last.
func (m *Modifier) Still(f *flow.Flow) error {
	asked, ok := f.Get(askedKey{}).(*policy.Request)
	if !ok {
		return errNoFlow
	}
	addrs, _ := f.Get(addrsKey{}).([]netip.Addr)
	if v := PossibleAt(m.policy, asked, addrs...); v.Effect == policy.Deny {
		f.SetVerdict(v)
		return m.refuse(v, asked)
	}
	return nil
}

// PossibleAt is the mildest verdict that facts still to come could bring to a request that goes to these addresses: the rule that may then
// decide has to open them.
func PossibleAt(p Policy, asked *policy.Request, addrs ...netip.Addr) policy.Verdict {
	if len(addrs) == 0 {
		return p.Possible(asked)
	}
	var v policy.Verdict
	for _, addr := range addrs {
		to := *asked
		to.Addr = addr
		v = p.Possible(&to)
		if kind := policy.PrivateKind(addr); kind != "" && v.Effect != policy.Deny && !v.Opens(addr) {
			v = policy.Verdict{
				Effect: policy.Deny, RuleID: policy.RulePrivate, BodyLimit: -1, Matched: policy.FactAddr,
				Reason: fmt.Sprintf("%s is a %s address, and rule %s opens none by a cidr", addr, kind, v.RuleID),
			}
		}
		if v.Effect == policy.Deny {
			break
		}
	}
	return v
}

// again decides anew about a request of which more is known. The rule on record stays the first as long as all agree.
func (m *Modifier) again(ctx context.Context, f *flow.Flow, req *policy.Request) error {
	v := m.policy.Continue(ctx, req, f.Verdict())
	if v.Effect == policy.Allow {
		f.Asked(v.AskID)
		return nil
	}
	f.SetVerdict(v)
	return m.refuse(v, req)
}

func (m *Modifier) refuse(v policy.Verdict, req *policy.Request) error {
	return Refuse(m.policy, v, req)
}

// Refuse makes the answer to a refused request.
func Refuse(p Policy, v policy.Verdict, req *policy.Request) *flow.Refusal {
	r := p.Refusal(v, req)
	out := &flow.Refusal{Status: r.Status, Header: http.Header{}, Body: r.Body, Rule: v.RuleID, Reason: v.Reason}
	for name, value := range r.Header {
		out.Header.Set(name, value)
	}
	return out
}

// requestOf is what the policy sees of a request.
func requestOf(f *flow.Flow, req *http.Request) *policy.Request {
	asked := &policy.Request{
		VM: f.VM, Host: f.Host, Port: f.Port, Scheme: f.Scheme, Method: req.Method, Path: req.URL.EscapedPath(), Query: req.URL.RawQuery,
		Header: passedOn(f.Header), BodySize: req.ContentLength,
	}
	if asked.Path == "" {
		asked.Path = "/"
	}
	if f.Process != nil {
		asked.Process, asked.Exe = f.Process.Name, f.Process.Exe
	}
	if strings.HasPrefix(f.Scheme, "ws") && asked.BodySize <= 0 {
		asked.BodySize = -1 // its messages are to come
	}
	return asked
}

// passedOn are the fields of a request that reach its host: a proxy takes out those that Connection names (RFC 9110 7.6.1).
func passedOn(h http.Header) http.Header {
	out := h
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))
			if _, there := out[name]; !there || name == "Connection" || name == "Upgrade" {
				continue
			}
			if len(out) == len(h) {
				out = h.Clone()
			}
			delete(out, name)
		}
	}
	return out
}
