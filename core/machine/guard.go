package machine

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"capsem/core/approval"
	"capsem/core/credential/swap"
	"capsem/core/detect"
	"capsem/core/inspect/git"
	"capsem/core/ledger"
	"capsem/core/mitm/flow"
	"capsem/core/mitm/record"
	"capsem/core/mitm/ws"
)

// modifiers are those of the VM's requests, in their order. Values of credentials are taken out of answers before anything else sees those,
// and put into requests after everything else has.
func (n *network) modifiers(between ...any) []any {
	secrets := swap.NewModifiers(swap.Config{Vault: n.w.credentials.vault, Record: n.swapped, Elsewhere: n.elsewhere})
	engine := detect.NewEngine(n.w.credentials.ownSecrets)
	found := detect.NewModifiers(detect.Config{
		Engine: engine, Verdict: n.w.detectVerdict, Record: n.detected, Ask: n.askFinding,
	})
	pushes := git.New(git.Config{Policy: n.policyNow, Ask: n.askAbout, Fetch: n.fetchTrees(secrets.Requests())}) //nolint:bodyclose // it closes them
	all := append([]any{secrets.Answers(), found, sockets{n, secrets, engine}, pushes}, between...)
	return append(all, secrets.Requests())
}

// fetchTrees sends what git has to know of a repository to its host, with the credentials that a request of the guest would get.
func (n *network) fetchTrees(secrets swap.Requests) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		if err := secrets.ModifyRequest(req); err != nil {
			return nil, err //nolint:wrapcheck // says why
		}
		began := time.Now()
		res, err := n.proxy.RoundTrip(req)
		n.w.note("git-trees-asked", req.URL.Host+req.URL.Path, time.Since(began)) // it is no request of the guest, and on record all the same
		return res, err                                                           //nolint:wrapcheck // says what it did
	}
}

// detectVerdict says what becomes of the findings of a detector. What is not set is refused.
func (w *Worker) detectVerdict(detector string) string {
	verdict := ""
	switch d := &w.spec.Detect; detector {
	case detect.Secrets:
		verdict = d.Secrets
	case detect.OwnSecrets:
		verdict = d.OwnSecrets
	case detect.Injection:
		verdict = d.Injection
	}
	if verdict == "" {
		return detect.Deny
	}
	return verdict
}

// swapped records what happened to a credential.
func (n *network) swapped(f *flow.Flow, e swap.Event) {
	n.w.record(ledger.Substitution{
		Time: e.Time, Action: e.Action, Credential: e.Credential, Kind: e.Kind, Domain: e.Host, Place: e.Where, Form: e.Form, Process: record.ProcessOf(f.Process),
	})
	if e.Action == swap.Refused {
		n.w.log.Warn("a placeholder of a credential was on its way elsewhere", "credential", e.Credential, "host", e.Host, "in", e.Where)
	}
}

// detected records what a detector found.
func (n *network) detected(f *flow.Flow, d detect.Finding, outcome string) {
	n.w.record(ledger.Detection{
		Detector: d.Detector, Rule: d.Rule, Outcome: outcome, Domain: f.Host, Place: d.Where, Process: record.ProcessOf(f.Process),
	})
}

// elsewhere decides about a placeholder on its way to a host it is not for.
func (n *network) elsewhere(ctx context.Context, f *flow.Flow, _ swap.Event, r *flow.Refusal) error {
	switch n.w.spec.Detect.Placeholders {
	case detect.Report:
		return nil
	case detect.Ask:
		if n.askAbout(ctx, f, r.Rule, r.Reason) {
			return nil
		}
	}
	return r
}

// askFinding asks the owner about a finding.
func (n *network) askFinding(ctx context.Context, f *flow.Flow, d detect.Finding) bool {
	return n.askAbout(ctx, f, "detect/"+d.Detector, fmt.Sprintf("%s was found in the %s", d.Rule, d.Where))
}

// askAbout waits for the owner's answer, at most as long as a question stands.
func (n *network) askAbout(ctx context.Context, f *flow.Flow, rule, reason string) bool {
	q := approval.Question{VM: f.VM, Scheme: f.Scheme, Host: f.Host, Port: f.Port, Size: -1, Rule: rule, Reason: reason, URL: f.Scheme + "://" + f.Host}
	if p := f.Process; p != nil {
		q.Process = approval.Process{PID: p.PID, UID: p.UID, Name: p.Name, Exe: p.Exe, CommandLine: p.CommandLine, Parents: p.Parents}
	}
	out := n.board.Ask(ctx, q)
	f.Asked(out.ID)
	return out.Status == approval.Approved
}

// sockets looks through the messages of WebSocket connections.
type sockets struct {
	n       *network
	secrets *swap.Modifiers
	engine  *detect.Engine
}

// ModifyRequest arranges that the messages are seen.
func (s sockets) ModifyRequest(req *http.Request) error {
	f := flow.From(req.Context())
	if f == nil || f.Type != "websocket" {
		return nil
	}
	// By direction, and apart for control frames, which may come in the middle of a message.
	var looks [2][2]look
	ctx := req.Context()
	ws.Pieces(f, func(p ws.Piece) error {
		return looks[index(p.FromGuest)][index(p.Opcode >= ws.Close)].see(ctx, s, f, p)
	})
	return nil
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

// look is what looks through the messages of one direction.
type look struct {
	begun   bool
	secrets *swap.Socket
	scan    *detect.Scan
}

// see looks at a piece of a message before it goes on.
func (l *look) see(ctx context.Context, s sockets, f *flow.Flow, p ws.Piece) error {
	if !l.begun { // not before: the request has been through all modifiers now
		l.begun, l.secrets = true, s.secrets.Socket(f, p.FromGuest)
	}
	if l.scan == nil {
		if l.scan = s.engine.Incoming(); p.FromGuest {
			l.scan = s.engine.Outgoing(f.Host)
		}
	}
	found := l.scan.Push(p.Data, p.Last)
	if p.Last {
		l.scan = nil
	}
	if err := s.detected(ctx, f, found); err != nil {
		return err
	}
	return l.secrets.See(p.Data, p.Last) //nolint:wrapcheck // says why
}

func (s sockets) detected(ctx context.Context, f *flow.Flow, found []detect.Finding) error {
	for _, d := range found {
		d.Where = "websocket message"
		verdict, outcome := s.n.w.detectVerdict(d.Detector), "reported"
		switch {
		case verdict == detect.Off:
			continue
		case verdict == detect.Deny, verdict == detect.Ask && !s.n.askFinding(ctx, f, d):
			outcome = "denied"
		case verdict == detect.Ask:
			outcome = "approved"
		}
		s.n.detected(f, d, outcome)
		if outcome == "denied" {
			return fmt.Errorf("refused by detect/%s: %s", d.Detector, d.Rule)
		}
	}
	return nil
}
