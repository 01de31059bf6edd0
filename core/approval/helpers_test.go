package approval

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"capsem/core/policy"
)

// hands is a clock that moves when told.
type hands struct {
	mu     sync.Mutex
	now    time.Time
	timers map[chan time.Time]time.Time
}

func newHands() *hands {
	return &hands{now: time.Unix(1_000_000, 0), timers: map[chan time.Time]time.Time{}}
}

func (h *hands) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hands) Timer(d time.Duration) (fired <-chan time.Time, stop func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ch := make(chan time.Time, 1)
	h.timers[ch] = h.now.Add(d)
	h.fire()
	return ch, func() { h.mu.Lock(); defer h.mu.Unlock(); delete(h.timers, ch) }
}

func (h *hands) move(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
	h.fire()
}

func (h *hands) fire() {
	for ch, at := range h.timers {
		if !at.After(h.now) {
			ch <- h.now
			delete(h.timers, ch)
		}
	}
}

// journal is a Recorder.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) Asked(q Question) { j.add("asked %s %s", q.Method, q.URL) }

func (j *journal) Answered(q Question, o Outcome) {
	j.add("%s %s %s %s by %s", o.Status, o.Scope, q.Method, q.URL, o.By)
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lines...)
}

type rig struct {
	*Board
	clock   *hands
	journal *journal
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	g := &rig{clock: newHands(), journal: new(journal)}
	cfg := Config{Recorder: g.journal, Clock: g.clock}
	if change != nil {
		change(&cfg)
	}
	g.Board = NewBoard(cfg)
	t.Cleanup(g.Close)
	return g
}

// waitFor reads states until there are n questions with so many requests in all.
func (g *rig) waitFor(t *testing.T, questions, requests int) []Question {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	states, err := g.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		for range states { // until the board has let go of it
		}
	}()
	var last State
	for last = range states {
		waiting := 0
		for _, q := range last.Pending {
			waiting += q.Waiting
		}
		if len(last.Pending) == questions && waiting == requests {
			return last.Pending
		}
	}
	t.Fatalf("never %d questions of %d requests, but %+v", questions, requests, last)
	return nil
}

func compiled(t *testing.T, layered ...string) *policy.Policy {
	t.Helper()
	layers := map[string]policy.Layer{"corp": policy.LayerCorp, "user": policy.LayerUser, "defaults": policy.LayerDefaults, "vm": policy.LayerVM}
	var sets []*policy.Set
	for i := 0; i < len(layered); i += 2 {
		s, err := policy.Parse(layered[i+1], layers[layered[i]])
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, s)
	}
	p, err := policy.Compile(sets...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rule is the text of one rule.
func rule(id, effect, body string) string {
	return fmt.Sprintf("[[rule]]\nid = %q\neffect = %q\nreason = \"because\"\n%s\n", id, effect, body)
}

func request(t *testing.T, method, url string) *policy.Request {
	t.Helper()
	r, err := policy.ForURL(method, url)
	if err != nil {
		t.Fatal(err)
	}
	r.VM = "vm1"
	return &r
}

// asked is a question as a proxy would put it.
func asked(t *testing.T, vm, method, url string) Question {
	t.Helper()
	r := request(t, method, url)
	r.VM = vm
	v := policy.Verdict{Effect: policy.Ask, RuleID: "r", Layer: policy.LayerUser, Reason: "because"}
	return newQuestion(r, &v, nil)
}
