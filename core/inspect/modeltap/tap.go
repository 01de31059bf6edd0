// Package modeltap watches a VM's requests as they pass the proxy: it holds them to the VM's budget and records what was said to models.
// It is a pair of modifiers (core/mitm/flow), to run behind the policy.
package modeltap

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"capsem/core/budget"
	"capsem/core/inspect/model"
	"capsem/core/inspect/price"
	"capsem/core/ledger"
	"capsem/core/mitm/flow"
	"capsem/core/policy"
)

// Rule is the id under which a budget refuses, RuleSocket that under which calls of models over a WebSocket are.
const Rule, RuleSocket = "capsem:budget", "capsem:model-socket"

// Config is what a Tap needs.
type Config struct {
	// Recorder takes a ledger.ModelCall for each call, and warnings.
	Recorder ledger.Recorder
	// Account is what the VM spends from; nil for a VM without budgets.
	Account *budget.Account
	// Prices are what models cost.
	Prices *price.Table
	// Log takes what goes wrong.
	Log *slog.Logger
	// Keep is how much of prompts, answers and arguments is recorded, in bytes; 0 is nothing.
	Keep int
}

// Tap is a request modifier and a response modifier of one VM.
type Tap struct {
	cfg    Config
	traces traces
}

// New makes a Tap.
func New(cfg Config) *Tap { return &Tap{cfg: cfg} }

var (
	errNoFlow = errors.New("model traffic: the request has no flow")
	errBudget = errors.New("cut by capsem: the budget is used up")
)

type callKey struct{}

// ModifyRequest reads a request and reserves what it may cost. The error is a *flow.Refusal when the budget does not allow it.
func (t *Tap) ModifyRequest(req *http.Request) error {
	f := flow.From(req.Context())
	if f == nil {
		return errNoFlow
	}
	c := &call{tap: t, flow: f, req: req, began: time.Now()}
	f.Set(callKey{}, c)
	f.AtEnd(c.end)
	if refusal := overSocket(f, req); refusal != nil {
		return refusal
	}
	e, ok := model.Identify(req.Method, f.Host, req.URL.Path)
	if !ok {
		return c.admitOther()
	}
	c.endpoint, c.isModel = e, true
	return c.readRequest(req)
}

// overSocket refuses a WebSocket to an API of a provider that there is over HTTP too: what is said on one is not read, so neither the record
// nor a budget would have it. The status tells clients that have both ways (Codex tries this one first) to take the other at once.
func overSocket(f *flow.Flow, req *http.Request) *flow.Refusal {
	if !strings.HasPrefix(f.Scheme, "ws") {
		return nil
	}
	e, ok := model.Identify(http.MethodPost, f.Host, req.URL.Path)
	if !ok || !e.Vendor || e.Shape != model.OpenAIResponses {
		return nil
	}
	const reason = "calls of models over a WebSocket are not recorded or counted; the same API over HTTPS is"
	return &flow.Refusal{
		Status: http.StatusUpgradeRequired, Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Upgrade": {"HTTP/1.1"}, "Connection": {"Upgrade"}},
		Body: []byte("capsem: " + reason + "\n"), Rule: RuleSocket, Reason: reason,
	}
}

// ModifyResponse has the answer read as it passes.
func (t *Tap) ModifyResponse(res *http.Response) error {
	f := flow.From(res.Request.Context())
	if f == nil {
		return errNoFlow
	}
	c, ok := f.Get(callKey{}).(*call)
	if !ok {
		return errNoFlow
	}
	if res.StatusCode == http.StatusSwitchingProtocols || res.Body == nil || res.Body == http.NoBody {
		return nil
	}
	c.answered(res)
	return nil
}

// refusal is the answer to a request that the budget does not allow. No client tries again after a 403 with these fields.
func (t *Tap) refusal(f *flow.Flow, req *http.Request, reason string) *flow.Refusal {
	shaped := policy.Shape(policy.Refused{
		Error: "refused by the budget of this VM", Rule: Rule, Reason: reason, Allowed: []string{},
		Request: req.Method + " " + f.Scheme + "://" + f.Host + short(req.URL.Path),
		Ask:     "Trying again will not help. The owner of this machine can look at it with \"capsem budget show\" and change it with \"capsem budget set\".",
	}, &policy.Request{Method: req.Method, Scheme: f.Scheme, Host: f.Host, Port: f.Port, Path: req.URL.Path, Header: req.Header})
	r := &flow.Refusal{Status: shaped.Status, Header: http.Header{}, Body: shaped.Body, Rule: Rule, Reason: reason}
	for name, value := range shaped.Header {
		r.Header.Set(name, value)
	}
	r.Header.Set("X-Should-Retry", "false")
	t.record(ledger.Lifecycle{Event: "budget-refused", Detail: f.Host + ": " + reason})
	return r
}

func short(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

func (t *Tap) record(row ledger.Row) {
	if t.cfg.Recorder != nil {
		t.cfg.Recorder.Record(row)
	}
}

// warn records what part of a budget is used.
func (t *Tap) warn(warnings []budget.Warning) {
	for _, w := range warnings {
		t.cfg.Log.Warn("budget", "warning", w.String())
		t.record(ledger.Lifecycle{Event: "budget-warning", Detail: w.String()})
	}
}

// cutEvent is the record of an answer that was cut.
func cutEvent(host string, err error) ledger.Lifecycle {
	return ledger.Lifecycle{Event: "budget-cut", Detail: host + ": " + short(err.Error())}
}
