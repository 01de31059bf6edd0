package guestlink

import (
	"context"
	"fmt"
	"sync"
	"time"

	"capsem/core/proto"
)

// lateAnswer is how long an answer may take before the clock that went with the question counts as old.
const lateAnswer = 2 * time.Second

// outgoing is a message for the writer, which says on sent how it went.
type outgoing struct {
	message proto.HostMessage
	sent    chan error
}

// pongs matches answers to pings. A guest may answer each ping once, so it can never send more than it was asked for.
type pongs struct {
	mu      sync.Mutex
	last    uint64
	owed    uint64
	waiting map[uint64]chan struct{}
}

func (p *pongs) ask() (uint64, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	p.owed++
	if p.waiting == nil {
		p.waiting = map[uint64]chan struct{}{}
	}
	ch := make(chan struct{})
	p.waiting[p.last] = ch
	return p.last, ch
}

// forget gives up waiting; the answer may still come.
func (p *pongs) forget(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, seq)
}

func (p *pongs) answered(seq uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owed == 0 || seq > p.last {
		return fmt.Errorf("guest agent: pong %d was never asked for", seq)
	}
	p.owed--
	if ch := p.waiting[seq]; ch != nil {
		delete(p.waiting, seq)
		close(ch)
	}
	return nil
}

// readLoop takes what the guest says after the handshake: answers to pings, nothing else.
func (a *Agent) readLoop() error {
	for {
		m, err := proto.ReadGuest(a.control)
		if err != nil {
			if ended := a.session.Err(); ended != nil {
				return ended
			}
			return fmt.Errorf("guest agent: control channel: %w", err)
		}
		pong, ok := m.(proto.Pong)
		if !ok {
			return fmt.Errorf("guest agent: a %T is out of order", m)
		}
		if err := a.pongs.answered(pong.Seq); err != nil {
			return err
		}
	}
}

// writeLoop is the only writer of the control channel. The guest may be paused, so whoever sends waits under its own
// context, not here.
func (a *Agent) writeLoop(ctx context.Context) error {
	for {
		select {
		case o := <-a.out:
			err := proto.WriteHost(a.control, o.message)
			o.sent <- err
			if err != nil {
				return fmt.Errorf("guest agent: control channel: %w", err)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (a *Agent) send(ctx context.Context, m proto.HostMessage) error {
	o := outgoing{message: m, sent: make(chan error, 1)}
	select {
	case a.out <- o:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.done:
		return a.Err()
	}
	select {
	case err := <-o.sent:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.done:
		return a.Err()
	}
}

// Ping gives the guest the host's clock and waits for its answer; call it after the VM was paused or restored.
func (a *Agent) Ping(ctx context.Context) error {
	seq, pong := a.pongs.ask()
	if err := a.send(ctx, proto.Ping{Seq: seq, EpochNS: time.Now().UnixNano()}); err != nil {
		a.pongs.forget(seq)
		return fmt.Errorf("ping guest: %w", err)
	}
	select {
	case <-pong:
		return nil
	case <-ctx.Done():
		a.pongs.forget(seq)
		return fmt.Errorf("ping guest: %w", context.Cause(ctx))
	case <-a.done:
		return fmt.Errorf("ping guest: %w", a.Err())
	}
}

// Shutdown asks the guest to power off, or to start again, and returns when the message is sent. Processes get TERM and,
// graceMS milliseconds (at most 60000) later, KILL.
func (a *Agent) Shutdown(ctx context.Context, graceMS uint32, reboot bool) error {
	if err := a.send(ctx, proto.Shutdown{GraceMS: min(graceMS, 60_000), Reboot: reboot}); err != nil {
		return fmt.Errorf("shut guest down: %w", err)
	}
	return nil
}

// heartbeats pings now and then. A paused guest owes one answer at a time, however long the pause; a late answer means
// that the clock sent with the question was old, so the next follows at once.
func (a *Agent) heartbeats(ctx context.Context) {
	timer := time.NewTimer(heartbeat)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		asked := time.Now()
		if err := a.Ping(ctx); err != nil {
			return
		}
		if time.Since(asked) > lateAnswer {
			timer.Reset(0)
		} else {
			timer.Reset(heartbeat)
		}
	}
}
