// Package record is the modifier that writes a row for each request when it has ended, whatever way.
package record

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"capsem/core/ledger"
	"capsem/core/mitm/flow"
	"capsem/core/policy"
	"capsem/core/proto"
)

// Recorder takes the rows. It must not block for long.
type Recorder interface {
	RecordNet(e ledger.NetEvent)
}

// Modifier records requests. Its request half runs before all others, so that what they refuse is recorded too and nothing that they put in;
// its response half after all others.
type Modifier struct {
	to      Recorder
	preview int
}

// MaxPreview is the longest beginning of a body that is kept.
const MaxPreview = 1 << 20

// New makes a modifier. preview is how many bytes of each body are kept, 0 for none.
func New(to Recorder, preview int) *Modifier {
	return &Modifier{to: to, preview: min(max(preview, 0), MaxPreview)}
}

// kept is what is known of a request until its end.
type kept struct {
	method, path, query string
	sent, received      *beginning

	mu     sync.Mutex
	header http.Header
}

type keptKey struct{}

// ModifyRequest arranges for the row.
func (m *Modifier) ModifyRequest(req *http.Request) error {
	f := flow.From(req.Context())
	if f == nil {
		return nil // the policy's modifier refuses it
	}
	k := &kept{method: req.Method, path: req.URL.EscapedPath(), query: req.URL.RawQuery}
	if m.preview > 0 {
		k.sent, k.received = newBeginning(m.preview), newBeginning(m.preview)
		if req.Body != nil && req.Body != http.NoBody {
			req.Body = k.sent.of(req.Body, req.Header.Get("Content-Encoding"))
		}
	}
	f.Set(keptKey{}, k)
	f.AtEnd(func(e flow.End) { m.to.RecordNet(row(f, k, &e)) })
	return nil
}

// ModifyResponse notes the head of the answer.
func (m *Modifier) ModifyResponse(res *http.Response) error {
	if res.Request == nil {
		return nil
	}
	f := flow.From(res.Request.Context())
	if f == nil {
		return nil
	}
	k, ok := f.Get(keptKey{}).(*kept)
	if !ok {
		return nil
	}
	k.mu.Lock()
	k.header = res.Header.Clone()
	k.mu.Unlock()
	if k.received != nil && res.StatusCode != http.StatusSwitchingProtocols && res.Body != nil {
		res.Body = k.received.of(res.Body, res.Header.Get("Content-Encoding"))
	}
	return nil
}

func row(f *flow.Flow, k *kept, end *flow.End) ledger.NetEvent {
	v := f.Verdict()
	k.mu.Lock()
	header := k.header
	k.mu.Unlock()
	e := ledger.NetEvent{
		Time: f.Began, Domain: f.Host, Port: int(f.Port), Decision: Decision(v, end.Err), Rule: v.RuleID, Reason: v.Reason,
		Process: ProcessOf(f.Process), Method: k.method, Path: k.path, Query: k.query, Status: end.Status, Sent: end.Sent, Received: end.Received,
		Duration: end.At.Sub(f.Began), RequestHeaders: f.Header, ResponseHeaders: header, Type: f.Type, Credential: f.Credential(),
		Remote: f.Remote(), AskID: v.AskID, RequestBody: k.sent.text(), ResponseBody: k.received.text(),
	}
	if e.Duration < 0 {
		e.Duration = 0
	}
	if end.Err != nil {
		e.Error = end.Err.Error()
	}
	return e
}

// Decision is what a row calls a verdict and an end: "allowed", "denied" or "error".
func Decision(v policy.Verdict, err error) string {
	switch {
	case v.Effect == policy.Deny, v.Effect == policy.Ask:
		return "denied"
	case v.Effect == 0, err != nil:
		return "error"
	}
	return "allowed"
}

// ProcessOf is a guest's claim as rows have it.
func ProcessOf(p *proto.ProcessClaim) ledger.Process {
	if p == nil {
		return ledger.Process{}
	}
	return ledger.Process{Name: p.Name, PID: int64(p.PID), CommandLine: p.CommandLine, Parents: strings.Join(p.Parents, " < ")}
}

// Connection is the row of a connection that carried no request that could be read.
func Connection(f *flow.Flow, end flow.End) ledger.NetEvent {
	e := row(f, &kept{}, &end)
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	return e
}
