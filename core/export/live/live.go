// Package live sends what is recorded of VMs to where the owner wants it, while it happens: OTLP to a collector, and lines to a syslog or to whoever reads
// them. It reads the records, which are files: what cannot be sent now waits there and not in memory, and no VM waits for it. How far it has come is kept
// beside each record, so that the next service goes on from there; what was sent just before a service died may be sent twice.
package live

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"capsem/core/export"
)

// The targets.
const (
	OTLP   = "otlp"
	Syslog = "syslog"
	Stream = "stream"
)

const (
	// tick is how often records are looked at, settingsTick how often the settings are.
	tick, settingsTick = time.Second, 5 * time.Second
	// keepTick is how often it is written down how far a record was sent.
	keepTick = 5 * time.Second
	// firstPause and lastPause are between tries.
	firstPause, lastPause = time.Second, 30 * time.Second
	// giveUp is how long a target may fail once the VM has ended, until the rest of its record is not sent.
	giveUp = time.Hour
	// maxSessions bounds how many sessions are followed at once.
	maxSessions = 1000
)

// Target is where to send to.
type Target struct {
	// To is an address that Check allows, Format the format of lines.
	To, Format string
}

// Config is what a Manager needs.
type Config struct {
	// Targets gives the targets as they are set now, by OTLP, Syslog and Stream; an error leaves them as they were.
	Targets func() (map[string]Target, error)
	// Running reports whether more can still come to the record of a session.
	Running func(session string) bool
	// DB is the file of a session's record, State where to note how far it was sent to a target.
	DB    func(session string) string
	State func(session, target string) string
	// Version and Host are what senders say of themselves.
	Version, Host string
	Log           *slog.Logger
	// GiveUp, Tick and Pause are for tests; 0 is what is usual.
	GiveUp, Tick, Pause time.Duration
}

// Manager follows sessions.
type Manager struct {
	cfg Config

	mu       sync.Mutex
	sessions map[string]bool
	// changed has a place for a wake-up.
	changed chan struct{}
}

// New makes a Manager. Nothing happens until Run.
func New(cfg Config) *Manager {
	if cfg.GiveUp == 0 {
		cfg.GiveUp = giveUp
	}
	if cfg.Tick == 0 {
		cfg.Tick = tick
	}
	if cfg.Pause == 0 {
		cfg.Pause = firstPause
	}
	return &Manager{cfg: cfg, sessions: map[string]bool{}, changed: make(chan struct{}, 1)}
}

// Follow has the record of a session sent, from where it was left. It never waits.
func (m *Manager) Follow(session string) {
	m.mu.Lock()
	full := len(m.sessions) >= maxSessions
	if !full {
		m.sessions[session] = true
	}
	m.mu.Unlock()
	if full {
		m.cfg.Log.Warn("too many records are waiting to be exported; this one is not", "session", session)
		return
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Run sends until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	var targets map[string]*target
	defer func() { closeAll(targets) }()
	ticks := time.NewTicker(m.cfg.Tick)
	defer ticks.Stop()
	var looked time.Time
	for {
		if now := time.Now(); now.Sub(looked) >= min(settingsTick, 5*m.cfg.Tick) {
			looked = now
			targets = m.reload(ctx, targets)
		}
		m.attend(ctx, targets)
		select {
		case <-ticks.C:
		case <-m.changed:
		case <-ctx.Done():
			return
		}
	}
}

// target is one that is in use, with what sends the sessions to it.
type target struct {
	Target
	name string
	sender
	cancel context.CancelFunc
	ctx    context.Context //nolint:containedctx // it ends when the setting changes
	feeds  sync.WaitGroup

	mu    sync.Mutex
	state map[string]feedState
	// down says that the last try failed, lost how many events it never got and was not told of.
	down bool
	lost int64
}

// feedState is what is known of one session on its way to a target.
type feedState int

const (
	idle feedState = iota
	sending
	finished
)

func closeAll(targets map[string]*target) {
	for _, t := range targets {
		t.cancel()
		t.feeds.Wait()
		t.close()
	}
}

// reload takes over what is set.
func (m *Manager) reload(ctx context.Context, old map[string]*target) map[string]*target {
	want, err := m.cfg.Targets()
	if err != nil {
		return old
	}
	next := map[string]*target{}
	for name, t := range old {
		if want[name] == t.Target {
			next[name] = t
			continue
		}
		closeAll(map[string]*target{name: t})
	}
	for name, w := range want {
		if w.To == "" || next[name] != nil {
			continue
		}
		s, err := m.newSender(name, w)
		if err != nil {
			m.cfg.Log.Warn("records are not exported", "target", name, "error", err)
			s = nowhere{}
		}
		t := &target{Target: w, name: name, sender: s, state: map[string]feedState{}}
		t.ctx, t.cancel = context.WithCancel(ctx)
		if err != nil {
			t.cancel() // until the setting changes
		}
		next[name] = t
	}
	return next
}

// attend sees to it that every session is on its way to every target, and forgets those that are there.
func (m *Manager) attend(ctx context.Context, targets map[string]*target) {
	m.mu.Lock()
	all := maps.Clone(m.sessions)
	m.mu.Unlock()
	for session := range all {
		left := m.cfg.Running(session)
		for _, t := range targets {
			if t.ctx.Err() == nil && t.attend(m, session) {
				left = true
			}
		}
		if left || ctx.Err() != nil {
			continue
		}
		m.mu.Lock()
		delete(m.sessions, session)
		m.mu.Unlock()
		for _, t := range targets {
			t.mu.Lock()
			delete(t.state, session)
			t.mu.Unlock()
		}
	}
}

// attend begins with a session if nothing sends it, and reports whether there is more of it to send.
func (t *target) attend(m *Manager, session string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.state[session] {
	case finished:
		return false
	case idle:
		t.state[session] = sending
		t.feeds.Go(func() {
			next := idle
			if m.send(t, session) {
				next = finished
			}
			t.mu.Lock()
			t.state[session] = next
			t.mu.Unlock()
		})
	case sending:
	}
	return true
}

// formatOf is the format that a target gets.
func formatOf(name string, t Target) string {
	switch {
	case name == OTLP:
		return export.OTLP
	case t.Format == "":
		return export.JSONL
	}
	return t.Format
}
