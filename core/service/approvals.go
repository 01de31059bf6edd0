package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"capsem/core/api"
	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/policy"
	"capsem/core/proto"
)

// Approvals is what waits for the owner, and a channel that is closed when that changes.
func (s *Service) Approvals() (api.ApprovalsReply, <-chan struct{}) {
	s.mu.Lock()
	changed := s.asked
	s.mu.Unlock()
	reply := api.ApprovalsReply{Pending: []json.RawMessage{}}
	for _, v := range s.all() {
		w := v.view()
		if w.life == nil || len(w.status.Questions) == 0 {
			continue
		}
		var pending []json.RawMessage
		if err := json.Unmarshal(w.status.Questions, &pending); err != nil {
			s.log.Warn("the questions of a VM cannot be read", "vm", w.spec.ID, "error", err)
			continue
		}
		reply.Pending = append(reply.Pending, pending...)
		reply.Waiting += w.status.Waiting
	}
	slices.SortStableFunc(reply.Pending, func(a, b json.RawMessage) int { return strings.Compare(askedAt(a), askedAt(b)) })
	return reply, changed
}

// askedAt is when a question was asked, as text that sorts.
func askedAt(q json.RawMessage) string {
	var part struct {
		Asked string `json:"asked"`
	}
	_ = json.Unmarshal(q, &part) // what cannot be read comes first
	return part.Asked
}

// questionsChanged wakes who watches the questions.
func (s *Service) questionsChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.asked)
	s.asked = make(chan struct{})
}

// Answer answers a question of any VM. The rule that "always" makes is added to the user's policy.
func (s *Service) Answer(ctx context.Context, id string, req api.AnswerRequest) (api.AnswerReply, error) {
	vm, rule, err := s.asker(id)
	if err != nil {
		return api.AnswerReply{}, err
	}
	ask := proto.WorkerRequest{Op: proto.OpAnswer, Answer: &proto.AnswerRequest{ID: id, Answer: req.Answer, Reach: req.Reach, By: req.By}}
	reply, err := s.Call(ctx, vm, ask)
	if err != nil {
		return api.AnswerReply{}, err
	}
	s.log.Info("answered", "vm", vm, "question", id, "answer", req.Answer, "by", req.By)
	if reply.Text != "" {
		if err := s.addRule("Approved by you.", reply.Text, rule); err != nil {
			return api.AnswerReply{}, err
		}
	}
	return api.AnswerReply{VM: vm, Rule: reply.Text}, nil
}

// asker is the VM whose question has an id, and the rule that asks.
func (s *Service) asker(id string) (vm, rule string, err error) {
	pending, _ := s.Approvals()
	for _, text := range pending.Pending {
		var q struct{ ID, VM, Rule string }
		if json.Unmarshal(text, &q) == nil && q.ID == id {
			return q.VM, q.Rule, nil
		}
	}
	return "", "", fault.New(fault.NotFound, "there is no question %.40q; it may have been answered, or its time is over", id).
		WithHint("capsem approve lists those that wait")
}

// addRule puts a rule into the user's policy, right before the one that asked, or, if that is of a preset, after all others there: it
// opens nothing that an earlier rule closes. What it would make of the file must be a policy.
func (s *Service) addRule(note, rule, before string) error {
	s.registryMu.Lock() // one at a time
	defer s.registryMu.Unlock()
	path := s.opts.Home.UserPolicy()
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("add rule: %w", err)
	}
	text, err := withRule(string(old), note, rule, before)
	if err != nil {
		return fault.Wrap(err, fault.Conflict, "the rule cannot be added to %s: %s", path, fault.Line(err)).WithHint("add it yourself:\n%s", rule)
	}
	return atomicfile.Write(path, []byte(text), 0o600) //nolint:wrapcheck // says what it did
}

// AddPolicyRules puts rules into the user's policy, in front of one that is there, or at the end.
func (s *Service) AddPolicyRules(req *api.PolicyRulesRequest) error {
	set, err := policy.Parse(req.Rules, policy.LayerUser)
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "these are no rules: %s", fault.Line(err))
	}
	if len(set.Rules) == 0 {
		return fault.New(fault.Invalid, "there is no rule to add").WithHint("[[rule]] tables, as in policy.toml")
	}
	if req.Before != "" {
		text, err := os.ReadFile(s.opts.Home.UserPolicy())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("add rules: %w", err)
		}
		now, err := policy.Parse(string(text), policy.LayerUser)
		if err == nil && !slices.ContainsFunc(now.Rules, func(r policy.Rule) bool { return r.ID == req.Before }) {
			return fault.New(fault.NotFound, "there is no rule %.80q in your policy", req.Before)
		}
	}
	if err := s.addRule("Added by your agent.", req.Rules, req.Before); err != nil {
		return err
	}
	s.log.Info("rules added to the policy", "count", len(set.Rules), "before", req.Before)
	return nil
}

// withRule is a policy's text with one rule more.
func withRule(text, note, rule, before string) (string, error) {
	set, err := policy.Parse(text, policy.LayerUser)
	if err != nil {
		return "", err //nolint:wrapcheck // says where
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	at := len(text)
	for i := range set.Rules {
		if r := &set.Rules[i]; r.ID == before && r.Line() > 0 {
			at = lineAt(text, r.Line())
		}
	}
	text = text[:at] + "# " + note + "\n" + strings.TrimRight(rule, "\n") + "\n\n" + text[at:]
	_, err = policy.Parse(text, policy.LayerUser)
	return text, err //nolint:wrapcheck // says where
}

// lineAt is where a line begins; the first is 1.
func lineAt(text string, number int) int {
	at, n := 0, 1
	for line := range strings.Lines(text) {
		if n == number {
			return at
		}
		at += len(line)
		n++
	}
	return len(text)
}
