package vz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/Code-Hex/vz/v3"

	"capsem/core/hypervisor"
	"capsem/core/proto"
)

// dialEvery is how long to wait between attempts to reach a guest that does not listen yet.
const dialEvery = 20 * time.Millisecond

// machine is one virtual machine of the framework.
type machine struct {
	log     *slog.Logger
	vm      *vz.VirtualMachine
	console *console
	// calls lets one call into the framework happen at a time.
	calls chan struct{}

	mu      sync.Mutex
	started bool
	killed  bool
	failed  bool
	once    sync.Once

	down chan struct{} // closed when everything is released; exit is set before
	exit hypervisor.Exit
}

// supervise follows the states until the machine is down.
func (m *machine) supervise(states <-chan vz.VirtualMachineState) {
	for state := range states {
		m.log.Debug("machine state", "state", state.String())
		m.mu.Lock()
		started := m.started
		m.failed = m.failed || state == vz.VirtualMachineStateError
		m.mu.Unlock()
		if state == vz.VirtualMachineStateError || (state == vz.VirtualMachineStateStopped && started) {
			break
		}
	}
	m.finish()
}

// finish releases everything, once, and says how it ended. The framework does not tell a power-off from a reset: our guests
// ask for a reboot over the link first, and the worker, which knows that, starts a new machine.
func (m *machine) finish() {
	m.once.Do(func() {
		m.console.close()
		m.mu.Lock()
		switch {
		case m.killed:
			m.exit.Reason = hypervisor.Killed
		case m.console.panicked():
			m.exit.Reason = hypervisor.GuestPanic
		case m.failed:
			m.exit = hypervisor.Exit{Reason: hypervisor.Crashed, Detail: "Virtualization.framework reports an internal error"}
		default:
			m.exit.Reason = hypervisor.GuestPoweroff
		}
		m.mu.Unlock()
		close(m.down)
	})
}

// run makes one call into the framework, which takes no context: a call that outlasts ctx goes on, and the next one waits.
func (m *machine) run(ctx context.Context, what string, call func() error) error {
	select {
	case <-m.down:
		return hypervisor.ErrGone
	case m.calls <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%s machine: %w", what, context.Cause(ctx))
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-m.calls }()
		done <- call()
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s machine: %w", what, err)
		}
		return nil
	case <-m.down:
		return hypervisor.ErrGone
	case <-ctx.Done():
		return fmt.Errorf("%s machine: %w", what, context.Cause(ctx))
	}
}

// Start runs the machine; allowed once.
func (m *machine) Start(ctx context.Context) error {
	m.mu.Lock()
	again := m.started
	m.started = true
	m.mu.Unlock()
	if again {
		return errors.New("start machine: it was started before")
	}
	return m.run(ctx, "start", func() error { return m.vm.Start() })
}

// Pause stops the virtual CPUs. Pausing a paused machine is no error.
func (m *machine) Pause(ctx context.Context) error {
	return m.run(ctx, "pause", func() error {
		if m.vm.State() == vz.VirtualMachineStatePaused {
			return nil
		}
		return m.vm.Pause()
	})
}

// Resume lets the virtual CPUs go on.
func (m *machine) Resume(ctx context.Context) error {
	return m.run(ctx, "resume", func() error {
		if m.vm.State() == vz.VirtualMachineStateRunning {
			return nil
		}
		return m.vm.Resume()
	})
}

// Stop presses the power button.
func (m *machine) Stop(ctx context.Context) error {
	return m.run(ctx, "stop", func() error {
		_, err := m.vm.RequestStop()
		return err
	})
}

// Kill ends the machine at once and waits until it is down.
func (m *machine) Kill(ctx context.Context) error {
	m.mu.Lock()
	m.killed = true
	started := m.started
	m.mu.Unlock()
	if !started {
		m.finish() // there is nothing to stop, and no state will come
		return nil
	}
	err := m.run(ctx, "kill", func() error {
		if m.vm.State() == vz.VirtualMachineStateStopped {
			return nil
		}
		return m.vm.Stop()
	})
	if err != nil && !errors.Is(err, hypervisor.ErrGone) {
		return err
	}
	_, err = m.Wait(ctx)
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

// Info describes the machine; it has no process of its own.
func (m *machine) Info() hypervisor.Info {
	return hypervisor.Info{Accelerator: hypervisor.HVF, Carrier: "vsock"}
}

// Carrier dials the guest until it listens.
func (m *machine) Carrier(ctx context.Context) (net.Conn, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-m.down:
			return nil, hypervisor.ErrGone
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to link: %w", context.Cause(ctx))
		}
		conn, err := m.connect(ctx)
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		timer.Reset(dialEvery)
	}
}

// connect makes one attempt. The framework's own may never return when nobody answers: a connection that comes too late is
// closed by the goroutine that waits for it.
func (m *machine) connect(ctx context.Context) (net.Conn, error) {
	devices := m.vm.SocketDevices()
	if len(devices) == 0 {
		return nil, errors.New("connect to link: the machine has no socket device")
	}
	type result struct {
		conn *vz.VirtioSocketConnection
		err  error
	}
	got, left := make(chan result), make(chan struct{})
	defer close(left)
	go func() {
		conn, err := devices[0].Connect(uint32(proto.PortControl))
		select {
		case got <- result{conn, err}:
		case <-left:
			if err == nil {
				_ = conn.Close() //nolint:errcheck // nobody wants it any more
			}
		}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			return nil, fmt.Errorf("connect to link: %w", r.err)
		}
		return r.conn, nil
	case <-m.down:
		return nil, hypervisor.ErrGone
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to link: %w", context.Cause(ctx))
	}
}
