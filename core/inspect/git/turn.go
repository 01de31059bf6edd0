package git

import (
	"context"
	"fmt"
	"sync"
)

// turn is a place among those packs that are looked through at once. It is given back when the pack is closed and nobody looks at it any more: to close
// one does not end what is done with it.
type turn struct {
	mu     sync.Mutex
	places chan struct{}
	at     int
	closed bool
}

// wait waits for a place, or for ctx.
func (t *turn) wait(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		t.places = places
		return nil
	case <-ctx.Done():
		return fmt.Errorf("judge git: %w", context.Cause(ctx))
	}
}

// enter reports whether the pack may be looked at; leave has to follow then.
func (t *turn) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.at++
	return true
}

func (t *turn) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at--
	t.give()
}

// over says that the pack is closed.
func (t *turn) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.give()
}

func (t *turn) give() {
	if t.closed && t.at == 0 && t.places != nil {
		<-t.places
		t.places = nil
	}
}
