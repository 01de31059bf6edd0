//go:build linux

package guesttest

import (
	"context"
	"sync"

	"capsem/core/link"
)

// Links is a link whose session may change. Make it with NewLinks.
type Links struct {
	mu      sync.Mutex
	session link.Session
	changed chan struct{}
}

// NewLinks has no session yet.
func NewLinks() *Links { return &Links{changed: make(chan struct{})} }

// Session returns the session that is up, or waits for one.
func (l *Links) Session(ctx context.Context) (link.Session, error) {
	for {
		l.mu.Lock()
		s, changed := l.session, l.changed
		l.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Set makes a session the one that is up; nil is none.
func (l *Links) Set(s link.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = s
	close(l.changed)
	l.changed = make(chan struct{})
}
