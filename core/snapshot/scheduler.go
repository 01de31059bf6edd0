package snapshot

import (
	"context"
	"log/slog"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
)

// Bounds of how often automatic snapshots are taken.
const (
	MinInterval     = 30 * time.Second
	DefaultInterval = 300 * time.Second
	MaxInterval     = 3600 * time.Second
)

// Schedule says when automatic snapshots are taken.
type Schedule struct {
	// Interval is the time between two, 0 for the default.
	Interval time.Duration
	// Changed reports whether anything may have changed since it was last asked, so that an idle workspace is not looked through. Nil means
	// that it always may have.
	Changed func() bool
	// ticks replaces the clock in tests.
	ticks <-chan time.Time
}

// Scheduler takes the automatic snapshots of one store.
type Scheduler struct {
	store  *Store
	plan   Schedule
	log    *slog.Logger
	cancel context.CancelFunc
	done   chan struct{}
}

// StartScheduler takes a first snapshot, and then one each interval if something changed, until ctx ends or Stop is called. A store has
// at most one scheduler.
func StartScheduler(ctx context.Context, store *Store, plan Schedule) (*Scheduler, error) {
	if plan.Interval == 0 {
		plan.Interval = DefaultInterval
	}
	if plan.Interval < MinInterval || plan.Interval > MaxInterval {
		return nil, fault.New(fault.OutOfRange, "an interval of %s is outside %s-%s", plan.Interval, MinInterval, MaxInterval)
	}
	if plan.Changed == nil {
		plan.Changed = func() bool { return true }
	}
	if store.scheduled.Swap(true) {
		return nil, fault.New(fault.Conflict, "these snapshots have a scheduler already")
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Scheduler{store: store, plan: plan, log: store.opts.Log, cancel: cancel, done: make(chan struct{})}
	go s.run(ctx)
	return s, nil
}

// Stop ends the scheduler and waits for it; a snapshot under way is given up.
func (s *Scheduler) Stop() {
	s.cancel()
	<-s.done
}

func (s *Scheduler) run(ctx context.Context) {
	defer close(s.done)
	defer s.store.scheduled.Store(false)
	defer s.cancel()
	ticks := s.plan.ticks
	if ticks == nil {
		ticker := time.NewTicker(s.plan.Interval)
		defer ticker.Stop()
		ticks = ticker.C
	}
	s.plan.Changed() // what changed until now is in the first one
	missed := !s.take(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
			if s.plan.Changed() || missed {
				missed = !s.take(ctx)
			}
		}
	}
}

// take takes one snapshot. One that fails is tried again next time, whether or not something more changes.
func (s *Scheduler) take(ctx context.Context) bool {
	done, err := s.store.Create(ctx, api.OriginAuto, "")
	if ctx.Err() != nil {
		return false
	}
	s.store.autoFailed(err)
	if err != nil {
		s.log.Warn("no automatic snapshot was taken", "err", err)
		return false
	}
	if !done.Unchanged {
		s.log.Debug("automatic snapshot", "snapshot", done.Checkpoint, "files", done.FilesCount)
	}
	return true
}

// autoFailed keeps why the last automatic snapshot was not taken, nil for one that was, and tells of it the first time.
func (s *Store) autoFailed(err error) {
	why := ""
	if err != nil {
		why = fault.Line(err)
	}
	s.mu.Lock()
	was := s.missed
	s.missed = why
	s.mu.Unlock()
	if why != "" && was != why && s.opts.Missed != nil {
		s.opts.Missed(why)
	}
}
