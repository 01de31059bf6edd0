//go:build linux

// Package agent is the guest's side of the link: the handshake and control channel, and the servers for what the host
// opens. Its processes outlive a link session; when the host begins a new one, the handshake is done again.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"capsem/core/guest/castore"
	"capsem/core/guest/exec"
	"capsem/core/guest/files"
	"capsem/core/guest/forward"
	"capsem/core/guest/identity"
	"capsem/core/guest/stage"
	"capsem/core/guest/terminal"
	"capsem/core/link"
	"capsem/core/proto"
)

// Power ends the machine.
type Power interface {
	// Off powers off, or restarts, after the grace asked for.
	Off(graceMS uint32, reboot bool) error
}

// Config is what an Agent is made of.
type Config struct {
	// Log receives what goes wrong.
	Log *slog.Logger
	// BootID is the kernel's; Restarted says that an earlier agent of this boot has died.
	BootID    string
	Restarted bool
	// Report is PID 1's record of the boot.
	Report stage.Report
	// Identity makes the guest one particular VM.
	Identity *identity.Setter
	// Exec and Terminals run commands and shells; their owner closes them after the agent.
	Exec      *exec.Server
	Terminals *terminal.Manager
	// Power ends the machine.
	Power Power
	// Mount mounts one shared directory; dial opens a stream to the host's side of it, whenever it is asked.
	Mount func(ctx context.Context, share proto.Share, dial func(context.Context) (io.ReadWriteCloser, error)) error
	// Mounts are those that Mount has mounted; nil where there are none.
	Mounts Mounts
}

// Mounts are shared directories that are mounted.
type Mounts interface {
	// Settle waits until what was written to them is on the host.
	Settle()
	// Generations tells how often each directory has met the host; Await waits until one has once more than it had, or for ctx.
	Generations() map[string]uint64
	Await(ctx context.Context, dir string, since uint64) error
}

// Agent serves one link session after another. Make it with New.
type Agent struct {
	Config

	// work are the handlers of streams; they may outlive their session.
	work sync.WaitGroup

	// store has the host's certificate; only session uses it.
	store castore.Keeper
	// mounted has the directory of each share that is mounted; only session uses it.
	mounted map[string]bool

	mu       sync.Mutex
	sessions int
	// current is the session that is up, direct the same without waiting for the shared directories.
	current, direct link.Session
	changed         chan struct{}
}

// New returns an Agent.
func New(c Config) *Agent {
	return &Agent{Config: c, mounted: map[string]bool{}, changed: make(chan struct{})}
}

// Acceptor waits for the host to begin a session.
type Acceptor interface {
	Accept(ctx context.Context) (link.Session, error)
}

// Run serves the sessions of one carrier until ctx ends or the carrier breaks.
func (a *Agent) Run(ctx context.Context, carrier Acceptor) error {
	for {
		s, err := carrier.Accept(ctx)
		if err != nil {
			return fmt.Errorf("wait for the host: %w", err)
		}
		err = a.session(ctx, s)
		a.Log.Debug("agent: link session over", "err", err)
		if err := s.Close(); err != nil {
			a.Log.Debug("agent: close session", "err", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// Wait waits for the handlers of streams; their context must have ended.
func (a *Agent) Wait() { a.work.Wait() }

// Session returns the session that is up, or waits for one. What is written to its streams comes after what was written to shared
// directories before.
func (a *Agent) Session(ctx context.Context) (link.Session, error) {
	return a.up(ctx, func() link.Session { return a.current })
}

// Direct is Session without that order, for what tells of no files.
func (a *Agent) Direct(ctx context.Context) (link.Session, error) {
	return a.up(ctx, func() link.Session { return a.direct })
}

func (a *Agent) up(ctx context.Context, which func() link.Session) (link.Session, error) {
	for {
		a.mu.Lock()
		s, changed := which(), a.changed
		a.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the link: %w", context.Cause(ctx))
		}
	}
}

func (a *Agent) setCurrent(s link.Session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current, a.direct = nil, s
	if s != nil {
		a.current = ordered{s, a.settle}
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

// hangUpTime is how long the end of a stream may take to reach the host.
const hangUpTime = time.Second

// session serves one session until it ends.
func (a *Agent) session(ctx context.Context, s link.Session) error {
	listener, err := s.Listen(proto.PortControl)
	if err != nil {
		return fmt.Errorf("listen for control: %w", err)
	}
	st, err := listener.Accept(ctx)
	if err = errors.Join(err, listener.Close()); err != nil {
		return fmt.Errorf("accept control: %w", err)
	}
	defer st.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // Run closes it again and tells
	defer stop()
	c := &control{agent: a, stream: st}
	defer c.trusting.Wait()
	if err := c.handshake(a.restored()); err != nil {
		a.Log.Error("agent: not ready: " + err.Error())
		hangUp(ctx, s, st)
		return err
	}
	var accepting sync.WaitGroup
	defer accepting.Wait()
	if err := a.listen(ctx, s, &accepting); err != nil {
		return errors.Join(err, s.Close())
	}
	var met map[string]uint64
	if a.Mounts != nil {
		met = a.Mounts.Generations()
	}
	a.setCurrent(s)
	defer a.setCurrent(nil)
	if err = a.mountAll(ctx, c.shares, met); err != nil {
		c.failed = append(c.failed, stage.Plain(err.Error()))
	}
	err = c.ready()
	if err == nil {
		err = c.serve()
	}
	return errors.Join(err, s.Close())
}

// hangUp ends the control stream and leaves the session up for a moment: on a serial port the host sees the end of a stream, and
// not that of a session, which it would wait for until its time is up.
func hangUp(ctx context.Context, s link.Session, st link.Stream) {
	_ = st.Close() // never fails
	timer := time.NewTimer(hangUpTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.Done():
	case <-ctx.Done():
	}
}

// restored reports whether there was a session or an agent before this one, and counts this one.
func (a *Agent) restored() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions++
	return a.Restarted || a.sessions > 1
}

// listen starts serving every port that the host opens.
func (a *Agent) listen(ctx context.Context, s link.Session, accepting *sync.WaitGroup) error {
	handlers := map[proto.Port]func(context.Context, link.Stream){
		proto.PortExec:       func(ctx context.Context, st link.Stream) { a.Exec.Serve(ctx, st) },
		proto.PortTerminal:   func(ctx context.Context, st link.Stream) { a.Terminals.Serve(ctx, st) },
		proto.PortAgentFiles: func(ctx context.Context, st link.Stream) { files.Server{Log: a.Log}.Serve(ctx, st) },
		proto.PortForward:    forward.Server{Log: a.Log}.Serve,
	}
	for port, handle := range handlers {
		l, err := s.Listen(port)
		if err != nil {
			return fmt.Errorf("listen on port %v: %w", port, err)
		}
		accepting.Go(func() {
			for {
				st, err := l.Accept(ctx)
				if err != nil {
					return
				}
				a.work.Go(func() { handle(ctx, orderedStream{st, a.settle}) })
			}
		})
	}
	return nil
}
