// Package flow is what the modifiers of one proxied request share. The proxy (core/mitm) puts a Flow into the context of each request before
// the first modifier runs; martian's modifiers get only the request or the response, and find it there.
//
// A modifier that returns an error ends the request: the guest gets a Refusal's answer as it is, any other error as a 502 without its text
// in it (fail closed). Modifiers run in order, for requests and then for the response; nothing is sent upstream before all have agreed.
package flow

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"capsem/core/policy"
	"capsem/core/proto"
)

// Flow is one request of a guest and what has been found out about it. The proxy sets what is above the line before the modifiers run; they
// only read that. What is below is written by modifiers through its methods, from any goroutine.
type Flow struct {
	// VM is the VM's name, Process what the guest claims of who asks.
	VM      string
	Process *proto.ProcessClaim
	// Host is the name the request is for, lower case without a trailing dot, or an address literal; Scheme is http, https, ws or wss.
	Host   string
	Port   uint16
	Scheme string
	// Type is how it is recorded: "http", "https", "h2" or "websocket".
	Type string
	// Began is when its head had been read.
	Began time.Time
	// Header are its header fields as the guest sent them, before any modifier put something in. Nobody changes them.
	Header http.Header

	mu         sync.Mutex
	verdict    policy.Verdict
	credential string
	remote     string
	values     map[any]any
	ends       []func(End)
}

// End says how a request ended.
type End struct {
	// Status is that of the answer the guest got, 0 if none.
	Status int
	// Sent and Received are bytes of the bodies as they passed, still compressed.
	Sent, Received int64
	// Err is what cut it short; nil when the answer was whole.
	Err error
	// At is when.
	At time.Time
}

type contextKey struct{}

// With returns a context that carries f.
func With(ctx context.Context, f *Flow) context.Context {
	return context.WithValue(ctx, contextKey{}, f)
}

// From returns the Flow of a request's context, nil if it has none: then a modifier must refuse.
func From(ctx context.Context) *Flow {
	f, _ := ctx.Value(contextKey{}).(*Flow)
	return f
}

// SetVerdict says what the policy decided. A question that the request was held for stays noted.
func (f *Flow) SetVerdict(v policy.Verdict) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v.AskID = cmp.Or(v.AskID, f.verdict.AskID)
	f.verdict = v
}

// Verdict is what the policy decided last.
func (f *Flow) Verdict() policy.Verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.verdict
}

// Asked notes the question to the owner that the request was held for, unless one is noted already.
func (f *Flow) Asked(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.verdict.AskID == "" {
		f.verdict.AskID = id
	}
}

// SetCredential names (never is) the credential that was put in.
func (f *Flow) SetCredential(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.credential = name
}

// Credential is the name of the credential that was put in, or "".
func (f *Flow) Credential() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.credential
}

// SetRemote says which address was dialled.
func (f *Flow) SetRemote(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remote = addr
}

// Remote is the address that was dialled, or "".
func (f *Flow) Remote() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.remote
}

// Set keeps a modifier's own state from its request half to its response half. The key is of a type of that modifier's package.
func (f *Flow) Set(key, value any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.values == nil {
		f.values = map[any]any{}
	}
	f.values[key] = value
}

// Get returns what Set kept, or nil.
func (f *Flow) Get(key any) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.values[key]
}

// AtEnd has do called once, when the request has ended, whatever way; last added first.
func (f *Flow) AtEnd(do func(End)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ends = append(f.ends, do)
}

// Finish is the proxy's: it calls what AtEnd was given. A second call does nothing.
func (f *Flow) Finish(e End) {
	f.mu.Lock()
	ends := f.ends
	f.ends = nil
	f.mu.Unlock()
	for _, end := range slices.Backward(ends) {
		end(e)
	}
}

// Refusal is an error of a modifier that is itself the answer to the guest.
type Refusal struct {
	// Status, Header and Body are the answer.
	Status int
	Header http.Header
	Body   []byte
	// Rule and Reason are for the record.
	Rule, Reason string
}

// Error says why.
func (r *Refusal) Error() string { return "refused by " + r.Rule + ": " + r.Reason }
