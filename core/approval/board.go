package approval

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"

	"capsem/core/fault"
	"capsem/core/policy"
)

// Defaults and bounds of a Board.
const (
	// DefaultTimeout is how long a question stands, DefaultPending how many of one VM stand at once.
	DefaultTimeout = 120 * time.Second
	DefaultPending = 64
	// maxWaiters bounds the requests that wait for one question, maxGrants what is allowed for the life of one VM.
	maxWaiters = 64
	maxGrants  = 1024
	maxBy      = 64
)

// Recorder keeps what was asked and answered. It is called in order and with the Board locked: it must not call back.
type Recorder interface {
	Asked(q Question)
	Answered(q Question, o Outcome)
}

// Clock is the time, for tests to set.
type Clock interface {
	Now() time.Time
	// Timer gives a channel that gets a value after d; stop gives it up.
	Timer(d time.Duration) (fired <-chan time.Time, stop func())
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) Timer(d time.Duration) (fired <-chan time.Time, stop func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// Config is what a Board needs. Zero fields have defaults, but the Recorder must be there.
type Config struct {
	Recorder Recorder
	// Timeout is how long a question stands, Pending how many of one VM may at once.
	Timeout time.Duration
	Pending int
	Clock   Clock
}

// Board is the questions that wait, of any number of VMs, and what has been allowed for the life of one.
type Board struct {
	cfg Config

	mu       sync.Mutex
	byID     map[string]*entry
	byKey    map[sameKey]*entry
	pending  map[string]int
	grants   map[grant]granter
	granted  map[string]int
	watchers map[*watcher]struct{}
	revision uint64
	asked    uint64
	closed   bool
}

// entry is one question and the requests that wait for it.
type entry struct {
	q   Question
	key sameKey
	// number is the order of asking.
	number  uint64
	rules   map[string]policy.Rule
	waiters map[*waiter]struct{}
}

// granter is who approved something for the life of a VM, and in answer to which question.
type granter struct{ by, id string }

// waiter is one request that is held.
type waiter struct {
	out chan Outcome
	// judge asks the policy in force again; nil if there is none.
	judge func() policy.Verdict
}

// NewBoard makes an empty board.
func NewBoard(cfg Config) *Board {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Pending <= 0 {
		cfg.Pending = DefaultPending
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	return &Board{
		cfg: cfg, byID: map[string]*entry{}, byKey: map[sameKey]*entry{}, pending: map[string]int{},
		grants: map[grant]granter{}, granted: map[string]int{}, watchers: map[*watcher]struct{}{},
	}
}

// Ask puts a question and waits for what becomes of it: an answer, the end of its time or of ctx. Equal ones share one place.
func (b *Board) Ask(ctx context.Context, q Question) Outcome { return b.ask(ctx, q, nil) }

func (b *Board) ask(ctx context.Context, q Question, judge func() policy.Verdict) Outcome {
	w := &waiter{out: make(chan Outcome, 1), judge: judge}
	e, over := b.enter(q, w)
	if e == nil {
		return over
	}
	b.rejudge(map[*waiter]*entry{w: e}) // the policy may have changed before the waiter was here to be told
	fired, stop := b.cfg.Clock.Timer(e.q.Expires.Sub(b.cfg.Clock.Now()))
	defer stop()
	select {
	case out := <-w.out:
		return out
	case <-fired:
		b.mu.Lock()
		defer b.mu.Unlock()
		b.end(e, Outcome{Status: TimedOut})
	case <-ctx.Done():
		b.mu.Lock()
		defer b.mu.Unlock()
		b.leave(e, w, Outcome{Status: Left})
	}
	return <-w.out // there now, or from somebody who was faster
}

// enter finds or makes the place of a question. Without one it says what the outcome is.
func (b *Board) enter(q Question, w *waiter) (*entry, Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, reach := range []string{ReachPath, ReachHost} {
		if g, ok := b.grants[q.grant(reach)]; ok {
			return nil, Outcome{Status: Approved, Scope: Session, Reach: reach, By: g.by, ID: g.id}
		}
	}
	key := q.key()
	e := b.byKey[key]
	switch {
	case b.closed:
		return nil, Outcome{Status: Gone}
	case e != nil && len(e.waiters) < maxWaiters:
		e.waiters[w] = struct{}{}
		e.q.Waiting = len(e.waiters)
		b.publish()
		return e, Outcome{}
	case e != nil, b.pending[q.VM] >= b.cfg.Pending:
		return nil, Outcome{Status: Refused}
	}
	b.asked++
	e = &entry{q: q.copied(), key: key, number: b.asked, waiters: map[*waiter]struct{}{w: {}}}
	e.q.forShow()
	e.q.Choices, e.rules = e.q.choices()
	e.q.ID, e.q.Waiting = b.newID(), 1
	e.q.Asked = b.cfg.Clock.Now()
	e.q.Expires = e.q.Asked.Add(b.cfg.Timeout)
	b.byID[e.q.ID], b.byKey[key] = e, e
	b.pending[q.VM]++
	b.cfg.Recorder.Asked(e.q.copied())
	b.publish()
	return e, Outcome{}
}

// newID is short enough to be typed, and not given twice at a time.
func (b *Board) newID() string {
	for {
		var raw [4]byte
		_, _ = rand.Read(raw[:]) // never fails
		if id := hex.EncodeToString(raw[:]); b.byID[id] == nil {
			return id
		}
	}
}

// end takes a question off the board and tells all who wait. The caller holds mu. A question that has ended stays as it ended.
func (b *Board) end(e *entry, out Outcome) {
	if b.byID[e.q.ID] != e {
		return
	}
	delete(b.byID, e.q.ID)
	delete(b.byKey, e.key)
	if b.pending[e.key.vm]--; b.pending[e.key.vm] <= 0 {
		delete(b.pending, e.key.vm)
	}
	out.Waited, out.ID = b.cfg.Clock.Now().Sub(e.q.Asked), e.q.ID
	for w := range e.waiters {
		w.out <- out
	}
	clear(e.waiters)
	b.cfg.Recorder.Answered(e.q.copied(), out)
	b.publish()
}

// leave takes one waiter from a question, which ends with its last. The caller holds mu.
func (b *Board) leave(e *entry, w *waiter, out Outcome) {
	if _, here := e.waiters[w]; !here {
		return
	}
	if len(e.waiters) == 1 {
		b.end(e, out)
		return
	}
	delete(e.waiters, w)
	e.q.Waiting = len(e.waiters)
	out.Waited, out.ID = b.cfg.Clock.Now().Sub(e.q.Asked), e.q.ID
	w.out <- out
	b.publish()
}

// List gives the questions that wait, the oldest first.
func (b *Board) List() []Question {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list()
}

func (b *Board) list() []Question {
	out := make([]Question, 0, len(b.byID))
	for _, e := range slices.SortedFunc(maps.Values(b.byID), func(x, y *entry) int { return cmp.Compare(x.number, y.number) }) {
		out = append(out, e.q.copied())
	}
	return out
}

// Answer answers a question. After "always" it gives the rule that the caller has to add to the owner's, before the one that asked.
func (b *Board) Answer(id string, a Answer) (Question, *policy.Rule, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.byID[id]
	if e == nil {
		return Question{}, nil, fault.New(fault.NotFound, "no question %.40q is waiting", id).WithHint("it may have been answered, or nobody waits for it any more")
	}
	if a.Reach == "" && (a.Answer == Session || a.Answer == Always) {
		a.Reach = ReachPath
	}
	if !slices.ContainsFunc(e.q.Choices, func(c Choice) bool { return c.Answer == a.Answer && c.Reach == a.Reach }) {
		return Question{}, nil, fault.New(fault.Invalid, "%.20q %.20q is no answer to question %s", a.Answer, a.Reach, id).
			WithHint("the answers there are stand in the question")
	}
	out := Outcome{Status: Approved, Scope: a.Answer, Reach: a.Reach, By: shown(a.By, maxBy)}
	var rule *policy.Rule
	switch a.Answer {
	case Deny:
		out.Status = Denied
	case Session:
		if b.granted[e.key.vm] >= maxGrants {
			return Question{}, nil, fault.New(fault.LimitReached, "VM %s has %d approvals already", e.q.VM, maxGrants).WithHint("write a rule instead")
		}
		g := e.q.grant(a.Reach)
		if _, has := b.grants[g]; !has {
			b.grants[g] = granter{cmp.Or(out.By, "unknown"), e.q.ID}
			b.granted[e.key.vm]++
		}
	case Always:
		r := e.rules[a.Reach]
		rule = &r
	}
	q := e.q.copied()
	b.end(e, out)
	return q, rule, nil
}

// rejudge asks the policy in force about waiters again. What it decides now is told to them; what it still asks about by the same rule stays.
func (b *Board) rejudge(list map[*waiter]*entry) {
	for w, e := range list {
		if w.judge == nil {
			continue
		}
		v := w.judge()
		if v.Effect == policy.Ask && v.RuleID == e.key.rule && v.Layer.String() == e.key.layer {
			continue
		}
		b.mu.Lock()
		b.leave(e, w, Outcome{Status: Decided, verdict: &v})
		b.mu.Unlock()
	}
}

// Reconsider is to be called after a change of policy.
func (b *Board) Reconsider() {
	b.mu.Lock()
	all := map[*waiter]*entry{}
	for _, e := range b.byID {
		for w := range e.waiters {
			all[w] = e
		}
	}
	b.mu.Unlock()
	b.rejudge(all)
}

// Forget ends the questions of a VM and what was allowed for its life.
func (b *Board) Forget(vm string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.byID {
		if e.key.vm == vm {
			b.end(e, Outcome{Status: Gone})
		}
	}
	for g := range b.grants {
		if g.vm == vm {
			delete(b.grants, g)
		}
	}
	delete(b.granted, vm)
}

// Close ends everything, and every later question at once.
func (b *Board) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, e := range b.byID {
		b.end(e, Outcome{Status: Gone})
	}
	clear(b.grants)
	clear(b.granted)
	for w := range b.watchers {
		b.drop(w)
	}
}
