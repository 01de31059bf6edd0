package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"capsem/core/approval"
	"capsem/core/config"
	"capsem/core/dns"
	"capsem/core/fault"
	"capsem/core/ledger"
	"capsem/core/link"
	"capsem/core/mitm"
	"capsem/core/policy"
	"capsem/core/proto"
)

const (
	// reconsiderPause is how often the rules are looked at while questions wait: an edit may answer them.
	reconsiderPause = time.Second
	// maxQuestions bounds what is told of the questions that wait, in bytes of JSON.
	maxQuestions = 128 << 10
	// hostsFile has the names that the owner has given by hand.
	hostsFile = "/etc/hosts"
	// namesKey is where the saved state of shared directories has the names of the VM.
	namesKey = "names"
)

// network is what decides where the VM may go: the rules, the questions to the owner, and the names it was told.
type network struct {
	w        *Worker
	rules    *config.PolicySource
	board    *approval.Board
	judge    *approval.Judge
	resolver *dns.Resolver
	names    *dns.Server
	proxy    *mitm.Server
	// closeTap ends the use of the budgets.
	closeTap func() error
	// certificate is of the CA that the guest is to trust.
	certificate []byte

	mu      sync.Mutex
	current *policy.Policy
	warned  string
}

// openNetwork begins with the VM's network. It ends when closeAll is called.
func (w *Worker) openNetwork(ctx context.Context) (closeAll func(), err error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	n := &network{w: w, rules: config.NewPolicySource(config.PolicyFiles(w.cfg.Home, w.dirNow()))}
	n.board = approval.NewBoard(approval.Config{Recorder: questionRecord{w}, Timeout: time.Duration(w.spec.AskTimeoutMS) * time.Millisecond})
	n.current = n.rules.Current()
	n.judge = approval.NewJudge(n.current, n.board)
	resolving := dns.ResolverConfig{Servers: w.spec.Network.DNS}
	if len(resolving.Servers) == 0 { // as this host resolves names
		resolving.HostsFile = hostsFile
	}
	n.resolver, err = dns.NewResolver(ctx, resolving)
	if err == nil {
		n.names, err = dns.NewServer(dns.Config{
			VM: w.spec.ID, Hostname: hostname(w.spec.ID), Judge: n, Recorder: n, Resolver: n.resolver,
			Unchecked: w.spec.Network.Proxy != "", // which may know names that nobody here does
		})
	}
	if err == nil {
		err = n.openProxy(ctx)
	}
	if err != nil {
		cancel()
		if _, said := errors.AsType[*fault.Error](err); said {
			return nil, err
		}
		return nil, fault.Wrap(err, fault.Invalid, "the VM's network cannot be set up: %s", fault.Line(err)).WithHint("look at [network] in user.toml")
	}
	var following sync.WaitGroup
	following.Go(func() { n.tellQuestions(ctx) })
	w.network = n
	return func() {
		n.board.Close()
		n.proxy.Close()
		if err := n.closeTap(); err != nil {
			w.log.Warn("cannot write the budgets", "error", err)
		}
		cancel()
		n.resolver.Close()
		following.Wait()
	}, nil
}

// Judge says what the rules say at this moment. What they ask about is held until the owner has answered.
func (n *network) Judge(ctx context.Context, req *policy.Request) policy.Verdict {
	return n.fresh().Judge(ctx, req)
}

// fresh is the judge under the rules as they are in their files now.
func (n *network) fresh() *approval.Judge {
	now := n.rules.Current()
	n.mu.Lock()
	defer n.mu.Unlock()
	if now != n.current {
		n.current = now
		n.judge.Reload(now)
		n.w.log.Info("the policy has changed")
		n.w.note("policy-changed", "", 0)
	}
	warning := ""
	if err := n.rules.Err(); err != nil {
		warning = fault.Line(err)
	}
	if warning != n.warned {
		if n.warned = warning; warning != "" {
			n.w.log.Warn("the policy cannot be read; what held before does", "error", warning)
			n.w.note("policy-unusable", warning, 0)
		}
	}
	return n.judge
}

// tellQuestions keeps the service informed of what waits for the owner, and looks at the rules while something does.
func (n *network) tellQuestions(ctx context.Context) {
	states, err := n.board.Watch(ctx)
	if err != nil {
		n.w.log.Error("questions to the owner cannot be seen", "error", err)
		return
	}
	tick := time.NewTicker(reconsiderPause)
	defer tick.Stop()
	waiting := 0
	for {
		var ticks <-chan time.Time
		if waiting > 0 {
			ticks = tick.C
		}
		select {
		case st, ok := <-states:
			if !ok {
				return
			}
			waiting = len(st.Pending)
			text := questionsText(st.Pending)
			n.w.board.update(func(status *proto.WorkerStatus) { status.Questions, status.Waiting = text, waiting })
		case <-ticks:
			n.fresh()
		}
	}
}

// questionsText is the questions as JSON, the oldest, as many as fit.
func questionsText(pending []approval.Question) []byte {
	for len(pending) > 0 {
		text, err := json.Marshal(pending)
		if err == nil && len(text) <= maxQuestions {
			return text
		}
		pending = pending[:len(pending)-1]
	}
	return nil
}

// serveDNS answers one stream of the guest's name lookups.
func (w *Worker) serveDNS(ctx context.Context, st link.Stream) {
	if w.network == nil {
		return // a template that is being made
	}
	if err := w.network.names.Serve(ctx, st); err != nil && ctx.Err() == nil {
		w.log.Debug("the guest's lookups ended", "error", err)
	}
}

// RecordDNS records a lookup.
func (n *network) RecordDNS(e dns.Event) {
	n.w.record(ledger.DNSEvent{
		Time: e.Time, Name: e.Name, Type: e.Type, Decision: e.Decision, Rule: e.Rule, Reason: e.Reason, Code: e.Code, Answer: e.Answer,
		Transport: e.Transport, Process: processOf(&e.Process), Duration: e.Duration, Error: e.Error,
	})
	if e.Repeats > 0 {
		n.w.note("lookups-not-recorded", fmt.Sprintf("%d that were answered from memory", e.Repeats), 0)
	}
}

// processOf is what the guest claims of a process, for the record.
func processOf(p *proto.ProcessClaim) ledger.Process {
	return ledger.Process{Name: p.Name, PID: int64(p.PID), CommandLine: p.CommandLine, Parents: strings.Join(p.Parents, " < ")}
}

// questionRecord records questions to the owner.
type questionRecord struct{ w *Worker }

// Asked records a question.
func (r questionRecord) Asked(q approval.Question) { r.w.record(questionRow(q, "pending")) }

// Answered records what became of one.
func (r questionRecord) Answered(q approval.Question, o approval.Outcome) {
	status := "denied"
	switch o.Status {
	case approval.Approved:
		status = "approved"
	case approval.TimedOut:
		status = "timeout"
	}
	row := questionRow(q, status)
	row.Scope, row.AnsweredBy, row.Waited = o.Scope, o.By, o.Waited
	if o.Status != approval.Approved && o.Status != approval.Denied && o.Status != approval.TimedOut {
		row.AnsweredBy = string(o.Status)
	}
	r.w.record(row)
}

func questionRow(q approval.Question, status string) ledger.Approval {
	if q.MCPServer != "" { // a call has no URL of its own
		q.Method, q.URL = "mcp", "mcp://"+q.MCPServer+"/"+q.MCPTool
	}
	return ledger.Approval{
		Time: time.Now(), AskID: q.ID, Status: status, Rule: q.Rule, Reason: q.Reason, Method: q.Method, URL: q.URL, Size: q.Size,
		Process: ledger.Process{Name: q.Process.Name, PID: int64(q.Process.PID), CommandLine: q.Process.CommandLine},
	}
}

// answerQuestion is the owner's answer to a question. After "always" it returns the rule for the owner's policy.
func (w *Worker) answerQuestion(req *proto.AnswerRequest) (rule string, err error) {
	if w.network == nil {
		return "", fault.New(fault.NotFound, "there is no question %.40q", req.ID)
	}
	_, r, err := w.network.board.Answer(req.ID, approval.Answer{Answer: req.Answer, Reach: req.Reach, By: req.By})
	if err != nil || r == nil {
		return "", err //nolint:wrapcheck // a fault
	}
	return policy.Format([]policy.Rule{*r}) //nolint:wrapcheck // says what it did
}
