// Package guestlink is the host's client of the agent in the guest: the handshake and the control channel of one link
// session, and the streams for commands, terminals, files and forwarded ports. The guest is hostile: what it says is
// validated, counted and waited for under a limit, and a guest that breaks the rules loses the session.
package guestlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"capsem/core/link"
	"capsem/core/proto"
)

// heartbeat is how often the guest is given the host's clock.
const heartbeat = 10 * time.Second

// Config is what Attach gives the guest.
type Config struct {
	// Boot is the VM's identity; its EpochNS is set when it is sent.
	Boot proto.BootConfig
	// Files are placed before the first command: at most proto.MaxBootFiles, of less than proto.MaxFrame bytes each and
	// proto.MaxBootFileBytes together.
	Files []proto.FileWrite
	// Log takes what the guest does wrong. Nil logs nothing.
	Log *slog.Logger
	// OnLifecycle answers a shutdown, reboot or suspend asked for in the guest; nil refuses them. It is called from a
	// goroutine that Close waits for, so it must return soon and not call Close.
	OnLifecycle func(proto.LifecycleRequest) proto.LifecycleReply
	// Services are the ports that the guest may open streams to, some before it is ready; other ports are refused. Close waits for
	// them.
	Services map[proto.Port]Service
}

// Agent is the agent of one guest during one link session. Its methods may be used at once by many goroutines.
type Agent struct {
	session link.Session
	control link.Stream
	log     *slog.Logger

	ready  proto.Ready
	stages []proto.BootStage
	failed []string

	out   chan outgoing
	pongs pongs

	stop context.CancelFunc
	wg   sync.WaitGroup
	done chan struct{}

	mu     sync.Mutex
	err    error
	closed func() error
}

// Attach performs the handshake and starts the control channel. It takes as long as the guest needs to boot: bound ctx.
// The Agent owns the session; when Attach fails the session is closed. A guest that does not answer in time is a
// fault.Timeout, one that speaks another protocol a fault.Unavailable.
func Attach(ctx context.Context, s link.Session, cfg Config) (*Agent, error) {
	a := &Agent{session: s, log: cfg.Log, out: make(chan outgoing), done: make(chan struct{})}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.closed = sync.OnceValue(a.shut)
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.stop = stop
	lifecycle, err := s.Listen(proto.PortLifecycle)
	if err == nil {
		err = a.listen(run, cfg.Services)
	}
	if err == nil {
		err = a.handshake(ctx, cfg)
	}
	if err != nil {
		stop()
		err = errors.Join(err, s.Close())
		a.wg.Wait()
		return nil, err
	}
	a.wg.Go(func() { a.end(a.readLoop()) })
	a.wg.Go(func() { a.end(a.writeLoop(run)) })
	a.wg.Go(func() { a.heartbeats(run) })
	a.wg.Go(func() { a.serveLifecycle(run, lifecycle, cfg.OnLifecycle) })
	return a, nil
}

// Ready is the agent's first message.
func (a *Agent) Ready() proto.Ready { return a.ready }

// Stages is the guest's boot timing.
func (a *Agent) Stages() []proto.BootStage { return a.stages }

// Failed lists the boot steps that went wrong without being fatal.
func (a *Agent) Failed() []string { return a.failed }

// Done is closed when the agent can no longer be used: the session has ended, the guest broke the rules, or Close.
func (a *Agent) Done() <-chan struct{} { return a.done }

// Err says why the agent can no longer be used; nil while it can.
func (a *Agent) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// end records the first reason and wakes everything up. The session itself is closed by Close.
func (a *Agent) end(err error) {
	a.mu.Lock()
	if a.err != nil {
		a.mu.Unlock()
		return
	}
	a.err = err
	a.mu.Unlock()
	close(a.done)
	a.stop()
	_ = a.control.Close()
}

// Close ends the session and waits for all goroutines.
func (a *Agent) Close() error { return a.closed() }

func (a *Agent) shut() error {
	a.end(fmt.Errorf("%w: it was closed", link.ErrSessionEnded))
	err := a.session.Close()
	a.wg.Wait()
	return err
}
