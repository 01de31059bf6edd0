package live

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"capsem/core/atomicfile"
	"capsem/core/export"
	"capsem/core/ledger"
)

// maxState bounds the file that says how far a record was sent.
const maxState = 64 << 10

// state is that file.
type state struct {
	// To is a hash of the address: another one gets all from the beginning.
	To string `json:"to"`
	// Sent is, by kind, the last event that was sent.
	Sent map[string]int64 `json:"sent"`
	// Done says that all was.
	Done bool `json:"done,omitempty"`
}

// loadState reads how far a record was sent. What cannot be read is as if nothing had been.
func loadState(path string) state {
	s := state{Sent: map[string]int64{}}
	text, err := os.ReadFile(path)
	if err != nil || len(text) > maxState || json.Unmarshal(text, &s) != nil || s.Sent == nil {
		return state{Sent: map[string]int64{}}
	}
	return s
}

// Unfinished reports whether a record was sent in part: there is a state at path, and it does not say that all was.
func Unfinished(path string) bool {
	if _, err := os.Lstat(path); err != nil {
		return false
	}
	return !loadState(path).Done
}

func (s *state) save(path string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("note what was exported: %w", err)
	}
	return atomicfile.Write(path, text, 0o600) //nolint:wrapcheck // says what it did
}

var (
	// errStopped ends a feed that is to go on later.
	errStopped = errors.New("stopped")
	// errGaveUp ends one whose target does not come back.
	errGaveUp = errors.New("given up")
)

// feed sends one session to one target.
type feed struct {
	m       *Manager
	t       *target
	session string
	path    string
	encoder *export.Encoder
	state   state
	saved   time.Time
	dirty   bool
	// over says that the VM has ended, since when the target has not taken anything.
	over  bool
	since time.Time
}

// send sends a session, and reports whether all of it has been.
func (m *Manager) send(t *target, session string) (done bool) {
	f := &feed{m: m, t: t, session: session, path: m.cfg.State(session, t.name), saved: time.Now()}
	f.state = loadState(f.path)
	sum := sha256.Sum256([]byte(t.To + " " + t.Format))
	if to := hex.EncodeToString(sum[:8]); f.state.To != to {
		f.state = state{To: to, Sent: map[string]int64{}}
	}
	if f.state.Done && !m.cfg.Running(session) {
		return true
	}
	f.state.Done = false
	running := m.cfg.Running(session)
	_, err := os.Stat(m.cfg.DB(session))
	if err != nil && running {
		return false // it is only just beginning
	}
	if f.encoder, err = export.NewEncoder(formatOf(t.name, t.Target), session); err != nil {
		m.cfg.Log.Warn("records are not exported", "target", t.name, "error", err)
		return true
	}
	f.over = !running
	err = ledger.Tail(t.ctx, m.cfg.DB(session), f.encoder.Kinds(), f.state.Sent, f.next, f.some)
	if err == nil {
		err = f.rest(true)
	}
	switch {
	case t.ctx.Err() != nil:
		f.keep(true)
		return false
	case errors.Is(err, errGaveUp):
		f.giveUp()
	case err != nil:
		m.cfg.Log.Warn("a record cannot be exported to its end", "target", t.name, "session", session, "error", err)
		if m.cfg.Running(session) { // it is tried again, after a while
			f.keep(true)
			f.rests()
			return false
		}
	}
	f.state.Done = true
	f.keep(true)
	return true
}

// rests waits as long as between the last tries.
func (f *feed) rests() {
	timer := time.NewTimer(lastPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.t.ctx.Done():
	}
}

// next waits for more, and says whether some may come.
func (f *feed) next() (bool, error) {
	if err := f.rest(false); err != nil {
		return false, err
	}
	f.keep(false)
	if f.over {
		return false, nil
	}
	f.over = !f.m.cfg.Running(f.session) // what it wrote at its end is still to be read
	timer := time.NewTimer(f.m.cfg.Tick)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-f.t.ctx.Done():
		return false, errStopped
	}
}

// some sends some events.
func (f *feed) some(entries []ledger.Entry) error {
	f.dirty = true
	for i := range entries {
		e := &entries[i]
		if err := f.encoder.Add(e); err != nil {
			return err //nolint:wrapcheck // an encoder's
		}
		if f.t.name == OTLP {
			continue
		}
		if err := f.lines(e, false); err != nil {
			return err
		}
	}
	if f.t.name == OTLP {
		return f.lines(nil, false)
	}
	return nil
}

// rest sends what the encoder has kept back.
func (f *feed) rest(last bool) error { return f.lines(nil, last) }

// lines sends the lines that there are.
func (f *feed) lines(e *ledger.Entry, last bool) error {
	lines, err := f.encoder.Lines(last)
	if err != nil {
		return err //nolint:wrapcheck // an encoder's
	}
	for _, line := range lines {
		if err := f.deliver(&message{session: f.session, entry: e, line: line, asIs: f.t.Format == export.OCSF}); err != nil {
			return err
		}
	}
	return nil
}

// deliver sends one message, again and again if need be.
func (f *feed) deliver(msg *message) error {
	pause := f.m.cfg.Pause
	for {
		if err := f.tellLost(); err == nil {
			rejected, again, err := f.t.send(f.t.ctx, msg)
			if err == nil || !again {
				f.since = time.Time{}
				f.t.up(f.m, err == nil)
				if err != nil {
					f.t.lose(f.m, f.session, max(1, rejected), err)
				} else if rejected > 0 {
					f.t.lose(f.m, f.session, rejected, errors.New("the collector has rejected a part"))
				}
				return nil
			}
			f.t.fails(f.m, err)
		} else {
			f.t.fails(f.m, err)
		}
		if f.since.IsZero() {
			f.since = time.Now()
		}
		if time.Since(f.since) > f.m.cfg.GiveUp && !f.m.cfg.Running(f.session) {
			return errGaveUp
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			pause = min(2*pause, lastPause)
		case <-f.t.ctx.Done():
			timer.Stop()
			return errStopped
		}
	}
}

// tellLost tells a target how many events it did not get, before it gets others.
func (f *feed) tellLost() error {
	f.t.mu.Lock()
	n := f.t.lost
	f.t.mu.Unlock()
	if n == 0 || f.t.name == OTLP {
		return nil
	}
	e := &ledger.Entry{Kind: "export", Time: time.Now().UTC().Format(time.RFC3339Nano), Fields: map[string]any{"event": "lost", "count": n}}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	if _, again, err := f.t.send(f.t.ctx, &message{session: f.session, entry: e, line: line}); err != nil && again {
		return err
	}
	f.t.mu.Lock()
	f.t.lost -= n
	f.t.mu.Unlock()
	return nil
}

// fails notes that a target does not answer, once.
func (t *target) fails(m *Manager, err error) {
	t.mu.Lock()
	was := t.down
	t.down = true
	t.mu.Unlock()
	if !was && t.ctx.Err() == nil {
		m.cfg.Log.Warn("a target of exports takes nothing; it is tried again", "target", t.name, "error", err)
	}
}

// up notes that it does.
func (t *target) up(m *Manager, took bool) {
	t.mu.Lock()
	was := t.down
	t.down = false
	t.mu.Unlock()
	if was && took {
		m.cfg.Log.Info("a target of exports is back", "target", t.name)
	}
}

// lose notes events that a target will never get.
func (t *target) lose(m *Manager, session string, n int64, err error) {
	t.mu.Lock()
	t.lost += n
	t.mu.Unlock()
	m.cfg.Log.Warn("events were not exported", "target", t.name, "session", session, "count", n, "error", err)
}

// giveUp counts what is left of a record whose target does not come back.
func (f *feed) giveUp() {
	var n int64
	once := func() (bool, error) { return false, nil }
	err := ledger.Tail(f.t.ctx, f.m.cfg.DB(f.session), f.encoder.Kinds(), f.state.Sent, once, func(some []ledger.Entry) error {
		n += int64(len(some))
		return nil
	})
	f.t.lose(f.m, f.session, n, errors.Join(errors.New("the target has not come back"), err))
}

// keep notes how far it has come.
func (f *feed) keep(now bool) {
	if !now && (!f.dirty || time.Since(f.saved) < keepTick) {
		return
	}
	f.saved, f.dirty = time.Now(), false
	if err := f.state.save(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, context.Canceled) {
		f.m.cfg.Log.Warn("cannot note what was exported", "session", f.session, "error", err)
	}
}
