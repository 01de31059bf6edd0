// Package hypervisortest is the contract that every hypervisor driver keeps.
package hypervisortest

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"capsem/core/hypervisor"
)

// patience bounds every wait; nothing is held to be faster than it was written to be.
const patience = 2 * time.Minute

// Driver is a driver under test with what its guests need.
type Driver struct {
	// Driver is new for each call.
	Driver hypervisor.Driver
	// Spec makes the spec of a machine whose guest answers on its link; the contract sets Console.
	Spec func(t *testing.T) hypervisor.Spec
	// Attach waits until the guest answers on the carrier, and returns what it can be told. The contract closes the carrier.
	Attach func(ctx context.Context, t *testing.T, carrier net.Conn) Guest
}

// Guest is what the contract needs the guest to do.
type Guest interface {
	// PowerOff and Reboot make the guest end itself; Crash makes its kernel panic.
	PowerOff(ctx context.Context) error
	Reboot(ctx context.Context) error
	Crash(ctx context.Context) error
	// Ping reports whether the guest answers.
	Ping(ctx context.Context) error
	// Close gives the link up.
	Close() error
}

// Contract runs the contract. Machines that boot a real guest are few: each subtest uses one.
func Contract(t *testing.T, driver func(t *testing.T) Driver) {
	t.Run("a machine that is never started ends with Kill", func(t *testing.T) { unstarted(t, driver(t)) })
	t.Run("a guest answers, pauses, goes on, survives a new carrier, and powers off", func(t *testing.T) { life(t, driver(t)) })
	t.Run("a reboot from inside is told apart", func(t *testing.T) { ends(t, driver(t), Guest.Reboot, hypervisor.GuestReboot) })
	t.Run("a panic is told apart", func(t *testing.T) { ends(t, driver(t), Guest.Crash, hypervisor.GuestPanic) })
	t.Run("a spec without a kernel or a resolved accelerator is refused", func(t *testing.T) { refused(t, driver(t)) })
}

type running struct {
	hypervisor.Machine
	d       Driver
	console string
}

func create(t *testing.T, d Driver) running {
	t.Helper()
	spec := d.Spec(t)
	console := filepath.Join(t.TempDir(), "console")
	f, err := os.OpenFile(console, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	spec.Console = f
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := d.Driver.Create(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := m.Kill(ctx); err != nil && !errors.Is(err, hypervisor.ErrGone) {
			t.Errorf("Kill: %v", err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(console)
			t.Logf("console:\n%s", text[max(0, len(text)-2000):])
		}
	})
	return running{m, d, console}
}

func (r running) attach(ctx context.Context, t *testing.T) Guest {
	t.Helper()
	carrier, err := r.Carrier(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return r.d.Attach(ctx, t, carrier)
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func unstarted(t *testing.T, d Driver) {
	ctx := limited(t)
	m := create(t, d)
	if err := m.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	exit, err := m.Wait(ctx)
	if err != nil || exit.Reason != hypervisor.Killed {
		t.Errorf("it ended as %+v, %v", exit, err)
	}
	if err := m.Kill(ctx); err != nil {
		t.Errorf("a second Kill: %v", err)
	}
	_, carrierErr := m.Carrier(ctx)
	for name, err := range map[string]error{
		"Start": m.Start(ctx), "Pause": m.Pause(ctx), "Resume": m.Resume(ctx), "Stop": m.Stop(ctx), "Carrier": carrierErr,
	} {
		if !errors.Is(err, hypervisor.ErrGone) {
			t.Errorf("%s of a machine that is down: %v", name, err)
		}
	}
}

func life(t *testing.T, d Driver) {
	ctx := limited(t)
	m := create(t, d)
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(ctx); err == nil {
		t.Error("a machine can be started twice")
	}
	guest := m.attach(ctx, t)
	caps, err := d.Driver.Capabilities(ctx)
	if err != nil || caps.Version == "" || len(caps.Accelerators) == 0 {
		t.Errorf("capabilities are %+v, %v", caps, err)
	}
	if caps.Pause {
		pauses(ctx, t, m, guest)
	}
	if err := guest.Ping(ctx); err != nil {
		t.Error(err)
	}
	if err := guest.Close(); err != nil {
		t.Logf("closing the link: %v", err)
	}
	guest = m.attach(ctx, t) // the carrier can be had again, and the guest goes on with it
	if err := guest.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if exit, err := m.Wait(ctx); err != nil || exit.Reason != hypervisor.GuestPoweroff {
		t.Errorf("it ended as %+v, %v", exit, err)
	}
	if err := m.Start(ctx); !errors.Is(err, hypervisor.ErrGone) {
		t.Errorf("Start of a machine that has run and is down: %v", err)
	}
	_ = guest.Close() // gone with the machine
}

func pauses(ctx context.Context, t *testing.T, m running, guest Guest) {
	t.Helper()
	for range 2 { // pausing a paused machine is no error
		if err := m.Pause(ctx); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := guest.Ping(short); err == nil {
		t.Error("a paused guest answers")
	}
	if err := m.Resume(ctx); err != nil {
		t.Fatal(err)
	}
}

func ends(t *testing.T, d Driver, do func(Guest, context.Context) error, want hypervisor.ExitReason) {
	ctx := limited(t)
	m := create(t, d)
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	guest := m.attach(ctx, t)
	if err := do(guest, ctx); err != nil {
		t.Fatal(err)
	}
	if exit, err := m.Wait(ctx); err != nil || exit.Reason != want {
		t.Errorf("it ended as %+v, %v; want %s", exit, err, want)
	}
	_ = guest.Close() // gone with the machine
}

func refused(t *testing.T, d Driver) {
	for name, spoil := range map[string]func(*hypervisor.Spec){
		"no kernel":           func(s *hypervisor.Spec) { s.Kernel = nil },
		"accelerator is auto": func(s *hypervisor.Spec) { s.Accelerator = hypervisor.Auto },
		"no memory":           func(s *hypervisor.Spec) { s.MemoryMB = 0 },
	} {
		spec := d.Spec(t)
		spoil(&spec)
		if m, err := d.Driver.Create(limited(t), spec); err == nil {
			_ = m.Kill(t.Context()) // it should not be there
			t.Errorf("%s: created", name)
		}
	}
}
