package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"capsem/core/fault"
)

// signals is the user's signals for a verb that has something to clean up. At first one of them ends ctx; after take they
// belong to the command in the guest.
type signals struct {
	// ctx ends at the first signal before take.
	ctx    context.Context //nolint:containedctx // it is what this type makes
	in     chan os.Signal
	cancel context.CancelFunc
	taken  chan struct{}
	// early is the last signal that ended ctx; it belongs to the goroutine until taken is closed and wg has waited.
	early os.Signal
	once  sync.Once
	wg    sync.WaitGroup
}

// watchSignals begins. SIGPIPE is among them, so that a broken stdout is an error of the write that meets it and not the
// end of the process: a temporary VM is to be destroyed first.
func watchSignals(ctx context.Context) *signals {
	s := &signals{in: make(chan os.Signal, 16), taken: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(ctx)
	signal.Notify(s.in, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGWINCH)
	s.wg.Go(func() {
		for {
			select {
			case <-s.taken:
				return
			case sig := <-s.in:
				if sig != syscall.SIGPIPE && sig != syscall.SIGWINCH {
					s.early = sig
					s.cancel()
				}
			}
		}
	})
	return s
}

// take hands the signals over to the caller. One that came just before, when what it was to end had already succeeded, is
// the first that the caller gets.
func (s *signals) take() <-chan os.Signal {
	s.once.Do(func() {
		close(s.taken)
		s.wg.Wait()
		if s.early != nil {
			select {
			case s.in <- s.early:
			default: // 16 others wait already
			}
		}
	})
	return s.in
}

// stop ends the watching; signals then do what they do by default.
func (s *signals) stop() {
	s.take()
	signal.Stop(s.in)
	s.cancel()
}

// explain turns what failed because of a signal into the exit code of an interrupt.
func (s *signals) explain(err error) error {
	if err != nil && s.ctx.Err() != nil {
		return &fault.Exit{Status: fault.ExitInterrupted}
	}
	return err
}
