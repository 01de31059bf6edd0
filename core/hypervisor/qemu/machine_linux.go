package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/digitalocean/go-qemu/qmp/raw"

	"capsem/core/hypervisor"
)

// machine is one QEMU process.
type machine struct {
	log  *slog.Logger
	spec hypervisor.Spec

	cmd     *exec.Cmd
	monitor *monitor
	qmp     *raw.Monitor
	link    *linkPort
	stderr  tail
	console tail

	killed  sync.Once
	started sync.Once
	ran     atomic.Bool // the virtual CPUs may have run
	stall   stall
	work    sync.WaitGroup // the wait for room on the disk
	dying   chan struct{}  // closed when QEMU has ended
	mu      sync.Mutex
	reason  hypervisor.ExitReason // what QEMU said of its end, or Killed

	down chan struct{} // closed when everything is released; exit is set before
	exit hypervisor.Exit
}

// launch starts QEMU and waits until its monitor answers.
func (m *machine) launch(ctx context.Context, program string) (err error) {
	ours, theirs, err := sockets()
	if err != nil {
		return err
	}
	m.monitor, m.link = newMonitor(ours[0]), newLinkPort(ours[2])
	m.qmp = raw.NewMonitor(m.monitor)
	log, err := duplicate(m.spec.Console)
	if err == nil {
		err = m.begin(program, theirs)
	}
	// QEMU has its ends. Ours must go, or the end of QEMU would not be the end of the connections.
	closeAll(theirs.all())
	if err != nil {
		closeAll(ours)
		return errors.Join(err, closeLog(log))
	}
	go m.supervise(ours[1], log)
	stop := context.AfterFunc(ctx, func() { m.end(hypervisor.Killed) })
	defer stop()
	err = m.monitor.Connect()
	if err == nil && m.spec.State != nil {
		err = m.load(ctx)
	}
	if err != nil {
		m.end(hypervisor.Killed)
		<-m.down
		return m.explain(ctx, err)
	}
	return nil
}

func closeLog(log *os.File) error {
	if log == nil {
		return nil
	}
	return log.Close() //nolint:wrapcheck // joined to what matters more
}

// explain prefers QEMU's own words: a monitor that closes says nothing.
func (m *machine) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("start QEMU: %w", context.Cause(ctx))
	}
	if words := m.stderr.String(); words != "" {
		return fmt.Errorf("start QEMU: %s", words)
	}
	return fmt.Errorf("start QEMU: %w", err)
}

func (m *machine) process(program string, line *command) *exec.Cmd {
	cmd := exec.Command(program, line.args...) //nolint:noctx // its life is the machine's
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.ExtraFiles, cmd.Stderr = line.files, &m.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.SysProcAttr.Credential = credential(m.spec.UID, m.spec.GID, m.spec.Accelerator)
	return cmd
}

// begin starts the process on a thread that stays until it has ended: the kernel's "parent death" means that thread's.
func (m *machine) begin(program string, e ends) error {
	line, err := commandLine(m.spec, e)
	if err != nil {
		return err
	}
	m.cmd = m.process(program, line)
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := m.cmd.Start()
		started <- err
		if err == nil {
			<-m.down
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	return nil
}

// supervise waits for the end of the process and of everything that listens to it.
func (m *machine) supervise(console net.Conn, log *os.File) {
	var wg sync.WaitGroup
	wg.Go(func() { drain(console, log, &m.console) })
	wg.Go(m.watch)
	state := m.wait()
	m.link.shut()
	wg.Wait() // both are read to their ends, which the end of the process is
	close(m.dying)
	m.work.Wait()
	closeAll([]net.Conn{console, m.monitor.conn})
	_ = closeLog(log)
	m.exit = m.verdict(state)
	m.log.Info("machine is down", "reason", m.exit.Reason, "detail", m.exit.Detail)
	close(m.down)
}

func (m *machine) wait() string {
	err := m.cmd.Wait()
	if err == nil {
		return ""
	}
	return err.Error()
}

// watch keeps what QEMU says about the end of the guest.
func (m *machine) watch() {
	for e := range m.monitor.events {
		reason, _ := e.Data["reason"].(string)
		switch {
		case noRoom(e):
			m.stalled()
		case e.Event == "GUEST_PANICKED":
			m.because(hypervisor.GuestPanic)
		case e.Event == "SHUTDOWN" && reason == "guest-shutdown":
			m.because(hypervisor.GuestPoweroff)
		case e.Event == "SHUTDOWN" && reason == "guest-reset":
			m.because(hypervisor.GuestReboot)
		}
	}
}

// because records why the machine ends; the first reason stays.
func (m *machine) because(reason hypervisor.ExitReason) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reason == "" {
		m.reason = reason
	}
}

func (m *machine) verdict(state string) hypervisor.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	exit := hypervisor.Exit{Reason: m.reason, Detail: m.stderr.String()}
	if exit.Reason == hypervisor.GuestReboot && strings.Contains(m.console.String(), "Kernel panic") {
		exit.Reason = hypervisor.GuestPanic // it restarts itself then, by "panic=-1" on the command line
	}
	if exit.Reason == "" {
		exit.Reason = hypervisor.Crashed
		exit.Detail = strings.TrimSpace("QEMU ended: " + state + " " + exit.Detail)
	}
	return exit
}

// end kills the process, once; the reason is only kept if QEMU has not told another one before.
func (m *machine) end(reason hypervisor.ExitReason) {
	m.killed.Do(func() {
		m.because(reason)
		// Not by number: supervise may have reaped the process, and the number be another's. A dead one is no error.
		_ = m.cmd.Process.Kill()
	})
}

// run does one thing with the monitor unless the machine is gone.
func (m *machine) run(ctx context.Context, what string, f func() error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s machine: %w", what, context.Cause(ctx))
	}
	done := make(chan error, 1)
	go func() { done <- f() }() // bounded by the monitor's own limit
	select {
	case err := <-done:
		select {
		case <-m.down:
			return hypervisor.ErrGone
		default:
		}
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

// Start lets the virtual CPUs run, for the first time.
func (m *machine) Start(ctx context.Context) error {
	err := errors.New("start machine: it was started before")
	m.started.Do(func() { err = m.run(ctx, "start", m.proceed) })
	select {
	case <-m.down:
		err = hypervisor.ErrGone
	default:
	}
	if err != nil && m.ran.Load() {
		err = fmt.Errorf("%w: %w", err, hypervisor.ErrRan)
	}
	return err
}

// Pause stops the virtual CPUs.
func (m *machine) Pause(ctx context.Context) error { return m.hold(ctx, true) }

// Resume lets the virtual CPUs go on.
func (m *machine) Resume(ctx context.Context) error { return m.hold(ctx, false) }

// Stop presses the power button.
func (m *machine) Stop(ctx context.Context) error {
	return m.run(ctx, "stop", m.qmp.SystemPowerdown)
}

// Kill ends the process and waits for it.
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
	default:
	}
	select {
	case <-m.down:
		return m.exit, nil
	case <-ctx.Done():
		return hypervisor.Exit{}, fmt.Errorf("wait for machine: %w", context.Cause(ctx))
	}
}

// Info describes the machine.
func (m *machine) Info() hypervisor.Info {
	return hypervisor.Info{PID: m.cmd.Process.Pid, Accelerator: m.spec.Accelerator, Carrier: carrier}
}

// Carrier connects to the guest's end of the link.
func (m *machine) Carrier(ctx context.Context) (net.Conn, error) {
	select {
	case <-m.down:
		return nil, hypervisor.ErrGone
	default:
	}
	return m.link.attach(ctx)
}
