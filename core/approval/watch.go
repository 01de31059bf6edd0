package approval

import (
	"context"

	"capsem/core/fault"
)

// maxWatchers bounds how many watch at once.
const maxWatchers = 64

// State is the questions that wait at one moment.
type State struct {
	// Revision grows with every change.
	Revision uint64     `json:"revision"`
	Pending  []Question `json:"pending"`
}

// watcher holds the newest state that its reader has not seen.
type watcher struct {
	ch   chan State
	stop func() bool
}

// Watch gives the state now and after every change, until ctx ends; then the channel is closed. A reader that is slow misses states
// but never the newest.
func (b *Board) Watch(ctx context.Context) (<-chan State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, fault.New(fault.Unavailable, "nothing is asked any more")
	case len(b.watchers) >= maxWatchers:
		return nil, fault.New(fault.LimitReached, "%d already watch the questions", maxWatchers)
	}
	w := &watcher{ch: make(chan State, 1)}
	w.ch <- State{Revision: b.revision, Pending: b.list()}
	b.watchers[w] = struct{}{}
	w.stop = context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.drop(w)
	})
	return w.ch, nil
}

// drop ends a watcher. The caller holds mu.
func (b *Board) drop(w *watcher) {
	if _, here := b.watchers[w]; !here {
		return
	}
	delete(b.watchers, w)
	w.stop()
	close(w.ch)
}

// publish tells the watchers. The caller holds mu, so that nobody else sends.
func (b *Board) publish() {
	b.revision++
	if len(b.watchers) == 0 {
		return
	}
	for w := range b.watchers {
		select {
		case <-w.ch:
		default:
		}
		w.ch <- State{Revision: b.revision, Pending: b.list()}
	}
}
