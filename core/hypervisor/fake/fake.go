// Package fake is a hypervisor driver without a hypervisor: its guest is a function in this process. It is for tests of what
// stands on the seam, and keeps the same contract (hypervisortest) as the real drivers.
package fake

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"capsem/core/hypervisor"
)

// Power is what a guest can do to its own machine.
type Power func(reason hypervisor.ExitReason)

// Options say what the machines run.
type Options struct {
	// Guest serves one carrier. It is called for each new carrier while the machine runs, and returns when ctx ends or the
	// carrier does. Power ends the machine.
	Guest func(ctx context.Context, carrier net.Conn, power Power)
	// FailCreate, when set, is what Create returns.
	FailCreate error
}

type driver struct{ opts Options }

// New returns the driver.
func New(opts Options) hypervisor.Driver { return &driver{opts} }

// Name is "fake".
func (d *driver) Name() string { return "fake" }

// Capabilities are all that the contract can test here.
func (d *driver) Capabilities(context.Context) (hypervisor.Capabilities, error) {
	return hypervisor.Capabilities{Pause: true, Accelerators: []hypervisor.Accelerator{hypervisor.TCG}, Version: "fake"}, nil
}

// Create checks the spec as a real driver would.
func (d *driver) Create(parent context.Context, spec hypervisor.Spec) (hypervisor.Machine, error) {
	switch {
	case d.opts.FailCreate != nil:
		return nil, d.opts.FailCreate
	case spec.Kernel == nil || spec.Initrd == nil || spec.CPUs < 1 || spec.MemoryMB < 1:
		return nil, errors.New("create machine: the spec is incomplete")
	case spec.Accelerator != hypervisor.TCG && spec.Accelerator != hypervisor.KVM:
		return nil, fmt.Errorf("create machine: accelerator %q is not resolved", spec.Accelerator)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(parent)) // a machine outlives the call that makes it
	m := &machine{opts: d.opts, spec: spec, ctx: ctx, stop: stop, running: make(chan struct{}), down: make(chan struct{}), gate: newGate()}
	return m, nil
}

type machine struct {
	opts Options
	spec hypervisor.Spec

	ctx  context.Context //nolint:containedctx // the life of the machine
	stop context.CancelFunc

	gate    *gate
	running chan struct{} // closed by Start
	down    chan struct{} // closed when the guest's functions have returned

	mu      sync.Mutex
	started bool
	ended   bool
	guests  sync.WaitGroup
	exit    hypervisor.Exit
}

// end stops the guest and, once its functions have returned, says that the machine is down.
func (m *machine) end(reason hypervisor.ExitReason) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	m.ended, m.exit = true, hypervisor.Exit{Reason: reason}
	m.stop()
	m.gate.open()
	go func() {
		m.guests.Wait()
		close(m.down)
	}()
}

func (m *machine) gone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}

// Start lets guests be served.
func (m *machine) Start(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.ended:
		return hypervisor.ErrGone
	case m.started:
		return errors.New("start machine: it was started before")
	}
	m.started = true
	close(m.running)
	return nil
}

// Pause stops the guest from reading its carrier.
func (m *machine) Pause(context.Context) error { return m.unlessGone(m.gate.shut) }

// Resume lets it go on.
func (m *machine) Resume(context.Context) error { return m.unlessGone(m.gate.open) }

func (m *machine) unlessGone(f func()) error {
	if m.gone() {
		return hypervisor.ErrGone
	}
	f()
	return nil
}

// Stop presses the power button, which this guest obeys at once.
func (m *machine) Stop(context.Context) error {
	return m.unlessGone(func() { m.end(hypervisor.GuestPoweroff) })
}

// Kill ends it.
func (m *machine) Kill(ctx context.Context) error {
	m.end(hypervisor.Killed)
	_, err := m.Wait(ctx)
	return err
}

// Wait blocks until the machine is down.
func (m *machine) Wait(ctx context.Context) (hypervisor.Exit, error) {
	select {
	case <-m.down:
		return m.exit, nil
	case <-ctx.Done():
		return hypervisor.Exit{}, fmt.Errorf("wait for machine: %w", context.Cause(ctx))
	}
}

// Info describes it.
func (m *machine) Info() hypervisor.Info {
	return hypervisor.Info{Accelerator: m.spec.Accelerator, Carrier: "serial"}
}

// Carrier connects to a new run of the guest's function, once the machine is started.
func (m *machine) Carrier(ctx context.Context) (net.Conn, error) {
	select {
	case <-m.ctx.Done():
		return nil, hypervisor.ErrGone
	case <-m.running:
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to link: %w", context.Cause(ctx))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return nil, hypervisor.ErrGone
	}
	host, guest := net.Pipe()
	m.guests.Go(func() {
		unhook := context.AfterFunc(m.ctx, func() { _ = guest.Close() })
		defer unhook()
		defer guest.Close()
		m.opts.Guest(m.ctx, &gated{guest, m.gate}, m.end)
	})
	return host, nil
}

// gate holds a paused guest.
type gate struct {
	mu   sync.Mutex
	pass chan struct{} // closed while open
}

func newGate() *gate {
	g := &gate{pass: make(chan struct{})}
	close(g.pass)
	return g
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.pass:
		g.pass = make(chan struct{})
	default:
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.pass:
	default:
		close(g.pass)
	}
}

func (g *gate) wait() {
	g.mu.Lock()
	pass := g.pass
	g.mu.Unlock()
	<-pass
}

// gated is the guest's end of a carrier.
type gated struct {
	net.Conn
	gate *gate
}

// Read reads once the machine is not paused.
func (c *gated) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.gate.wait()
	return n, err
}

// Write writes once the machine is not paused.
func (c *gated) Write(p []byte) (int, error) {
	c.gate.wait()
	return c.Conn.Write(p)
}
