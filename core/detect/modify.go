package detect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"capsem/core/detect/pipe"
	"capsem/core/mitm/flow"
)

// What becomes of a finding: nothing is looked for, it is reported, the owner is asked, or it is refused.
const (
	Off, Report, Ask, Deny = "off", "report", "ask", "deny"
)

// Config is what the modifiers need.
type Config struct {
	Engine *Engine
	// Verdict says what becomes of the findings of a detector: Off, Report, Ask or Deny.
	Verdict func(detector string) string
	// Record takes every finding and what became of it: "reported", "approved" or "denied". It must not block.
	Record func(f *flow.Flow, found Finding, outcome string)
	// Ask waits for the owner's answer; nil is no.
	Ask func(ctx context.Context, f *flow.Flow, found Finding) bool
}

// Modifiers look through requests and answers that the policy has allowed. They come before those that put credentials in, and for answers
// after those that take them out.
type Modifiers struct{ cfg Config }

// NewModifiers makes them.
func NewModifiers(cfg Config) *Modifiers { return &Modifiers{cfg} }

// judge deals with a finding: nil lets the text go on.
func (m *Modifiers) judge(ctx context.Context, f *flow.Flow, found Finding) error {
	outcome := "reported"
	switch m.cfg.Verdict(found.Detector) {
	case Off:
		return nil
	case Report:
	case Ask:
		outcome = "denied"
		if m.cfg.Ask != nil && m.cfg.Ask(ctx, f, found) {
			outcome = "approved"
		}
	default:
		outcome = "denied"
	}
	if m.cfg.Record != nil {
		m.cfg.Record(f, found, outcome)
	}
	if outcome != "denied" {
		return nil
	}
	return refusal(found)
}

// refusal is what the guest is told.
func refusal(found Finding) *flow.Refusal {
	rule := "detect/" + found.Detector
	reason := fmt.Sprintf("%s was found in the %s", found.Rule, found.Where)
	body, err := json.MarshalIndent(map[string]string{
		"error": "refused by a detector", "rule": rule, "reason": reason,
		"ask": "Trying again will not help. Leave it out, or ask the owner of this machine.",
	}, "", "  ")
	if err != nil { // only strings are in it
		body = []byte(`{"error":"refused by a detector"}`)
	}
	return &flow.Refusal{
		Status: http.StatusForbidden, Body: body, Rule: rule, Reason: reason,
		Header: http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "X-Capsem-Rule": {rule}, "X-Should-Retry": {"false"}},
	}
}

func (m *Modifiers) wants(detectors ...string) bool {
	for _, d := range detectors {
		if m.cfg.Verdict(d) != Off {
			return true
		}
	}
	return false
}

// signIns are the headers in which tokens belong.
var signIns = map[string]bool{"Authorization": true, "Proxy-Authorization": true, "Cookie": true}

// ModifyRequest looks through a request for secrets. The body is looked through as it is read.
func (m *Modifiers) ModifyRequest(req *http.Request) error {
	f := flow.From(req.Context())
	if f == nil {
		return errors.New("look for secrets: the request has no flow")
	}
	if !m.wants(Secrets, OwnSecrets) {
		return nil
	}
	look := func(where, text string, s *Scan) error {
		if len(text) < Window { // nothing that is looked for is so short
			return nil
		}
		defer s.free()
		return m.all(req.Context(), f, where, s.Push([]byte(text), true))
	}
	target := req.URL.RequestURI()
	if plain, err := url.PathUnescape(target); err == nil && plain != target {
		target += " " + plain
	}
	if err := look("URL", target, m.cfg.Engine.Outgoing(f.Host)); err != nil {
		return err
	}
	for name, values := range req.Header {
		for _, v := range values {
			s := m.cfg.Engine.Outgoing(f.Host)
			s.header = signIns[name]
			if err := look("headers", v, s); err != nil {
				return err
			}
		}
	}
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	filter := func() pipe.Filter {
		return &filter{m: m, ctx: req.Context(), f: f, scan: m.cfg.Engine.Outgoing(f.Host), hold: true}
	}
	trailers := func() error {
		for name, values := range req.Trailer {
			if err := look("trailers", name+": "+strings.Join(values, ", "), m.cfg.Engine.Outgoing(f.Host)); err != nil {
				return err
			}
		}
		return nil
	}
	if e := pipe.Encoding(req.Header); e != "" {
		req.Body = pipe.NewPeek(e, req.Body, filter(), filter(), trailers)
		return nil
	}
	req.Body = pipe.NewBody(req.Body, req.Body.Close, filter(), trailers)
	return nil
}

func (m *Modifiers) all(ctx context.Context, f *flow.Flow, where string, found []Finding) error {
	for _, one := range found {
		one.Where = where
		if err := m.judge(ctx, f, one); err != nil {
			return err
		}
	}
	return nil
}

// ModifyResponse looks through an answer for marks of orders to a model. Compressed text is passed on plain.
func (m *Modifiers) ModifyResponse(resp *http.Response) error {
	if resp.Request == nil || flow.From(resp.Request.Context()) == nil {
		return errors.New("look through answer: it has no flow")
	}
	if !m.wants(Injection) || resp.Body == nil || resp.Body == http.NoBody || !pipe.IsText(resp.Header) || resp.Request.Method == http.MethodHead ||
		resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		return nil
	}
	src, end := io.Reader(resp.Body), resp.Body.Close
	if e := pipe.Encoding(resp.Header); e != "" {
		plain, err := pipe.Decode(e, resp.Body)
		if err != nil {
			return err //nolint:wrapcheck // says what it did
		}
		src, end, resp.ContentLength = plain, plain.Closing(end), -1
		resp.Header.Del("Content-Encoding")
		resp.Header.Del("Content-Length")
	}
	ctx := resp.Request.Context()
	resp.Body = pipe.NewBody(src, end, &filter{m: m, ctx: ctx, f: flow.From(ctx), scan: m.cfg.Engine.Incoming()}, nil)
	return nil
}

// filter passes a body on as it is, but for what may be a part of a secret.
type filter struct {
	m    *Modifiers
	ctx  context.Context //nolint:containedctx // of the request that the body belongs to
	f    *flow.Flow
	scan *Scan
	// hold says that what may go on to be a secret is held back.
	hold      bool
	held, out []byte
}

// Free gives the buffers away.
func (l *filter) Free() {
	l.scan.free()
	putBuffer(l.held)
	putBuffer(l.out)
	l.held, l.out = nil, nil
}

// Push looks at the next piece.
func (l *filter) Push(p []byte, last bool) ([]byte, error) {
	if err := l.m.all(l.ctx, l.f, "body", l.scan.Push(p, last)); err != nil {
		return nil, err
	}
	if !l.hold {
		return p, nil
	}
	if len(l.held) == 0 {
		n := len(p)
		if !last {
			n = max(0, n-l.scan.open)
		}
		if l.held == nil {
			l.held, l.out = getBuffer(), getBuffer()
		}
		l.held = append(l.held, p[n:]...)
		return p[:n], nil
	}
	l.held = append(l.held, p...)
	n := len(l.held)
	if !last {
		n = max(0, n-l.scan.open)
	}
	l.out = append(l.out[:0], l.held[:n]...)
	l.held = l.held[:copy(l.held, l.held[n:])]
	return l.out, nil
}
