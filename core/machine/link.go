package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"capsem/core/fault"
	"capsem/core/guestlink"
	"capsem/core/hypervisor"
	"capsem/core/lifecycle"
	"capsem/core/link"
	"capsem/core/mitm/authority"
	"capsem/core/proto"
)

const (
	// firstPause and longestPause are how long to wait before the link is made anew: a guest that breaks it again and again must
	// not keep the host busy. A link that lasted steadyTime starts over with the first.
	firstPause, longestPause = 20 * time.Millisecond, 2 * time.Second
	steadyTime               = 10 * time.Second
)

// guestAgent is the host's side of the guest's agent.
type guestAgent = *guestlink.Agent

// serveGuest starts the machine and keeps a link to the agent in its guest until down ends. It returns why there is none.
func (w *Worker) serveGuest(boot, down context.Context, vm hypervisor.Machine) error {
	started := time.Now()
	if err := w.setOff(boot, vm); err != nil {
		return cause(boot, err)
	}
	a, err := w.attach(boot, vm)
	if err != nil {
		return cause(boot, err)
	}
	if err := w.unshared(a); err != nil {
		return errors.Join(err, a.Close())
	}
	w.furnishCredentials(boot, a)
	w.setAgent(a) // before anybody learns that the VM runs
	w.activity.touch()
	w.board.update(func(st *proto.WorkerStatus) {
		if st.State == lifecycle.Booting {
			st.State = lifecycle.Running
		}
		st.Step, st.ReadyNS, st.Stages, st.Failed = "", time.Now().UnixNano(), a.Stages(), a.Failed()
		switch {
		case st.Warm:
			st.Stages = warmStages(started)
		case w.resuming:
			st.Stages = resumeStages(started)
		}
	})
	w.log.Info("guest is ready", "agent", a.Ready().Agent)
	w.noteStart(time.Since(started))
	w.scheduleSnapshots(down)
	for _, f := range a.Failed() {
		w.log.Warn("the guest could not do everything at boot", "step", f)
	}
	return w.keep(down, vm, a)
}

// keep waits for the link to break and makes it anew, until down ends.
func (w *Worker) keep(down context.Context, vm hypervisor.Machine, a guestAgent) error {
	pause := firstPause
	for {
		since := time.Now()
		w.use(down, a)
		if down.Err() != nil {
			return nil
		}
		if time.Since(since) > steadyTime {
			pause = firstPause
		}
		again, next, err := w.reattach(down, vm, pause)
		if down.Err() != nil {
			if again != nil {
				return again.Close() //nolint:wrapcheck // nobody reads it
			}
			return nil
		}
		if err != nil {
			return err
		}
		a, pause = again, next
	}
}

// use lets requests have the agent until it breaks or down ends.
func (w *Worker) use(down context.Context, a guestAgent) {
	w.setAgent(a)
	select {
	case <-a.Done():
		level := slog.LevelWarn
		if w.wanted() {
			level = slog.LevelDebug // it is on its way down
		}
		w.log.Log(down, level, "the link to the guest broke", "why", a.Err())
	case <-down.Done():
	}
	w.setAgent(nil)
	if err := a.Close(); err != nil {
		w.log.Debug("closing the link", "error", err)
	}
}

// reattach tries to make the link anew, with growing pauses, for as long as a guest may take to become ready. It returns the next
// pause.
func (w *Worker) reattach(down context.Context, vm hypervisor.Machine, pause time.Duration) (guestAgent, time.Duration, error) {
	limit := time.Duration(w.spec.ReadyTimeoutMS) * time.Millisecond
	ctx, cancel := context.WithTimeoutCause(down, limit, fault.New(fault.Timeout, "the guest's agent went away and did not come back within %s", limit))
	defer cancel()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, pause, context.Cause(ctx) //nolint:wrapcheck // says it all
		}
		pause = min(2*pause, longestPause)
		a, err := w.attach(ctx, vm)
		if err == nil || errors.Is(err, hypervisor.ErrGone) {
			return a, pause, err
		}
		w.log.Warn("cannot connect to the guest again", "error", err)
		timer.Reset(pause)
	}
}

func (w *Worker) setAgent(a guestAgent) {
	w.mu.Lock()
	w.agent = a
	w.mu.Unlock()
	w.board.update(func(*proto.WorkerStatus) {}) // wakes who waits for the agent
}

// certificate is of the CA that the guest is to trust. Templates have that of their installation, since to put it into a guest's stores
// takes as long as a third of a start; should there be another one when a VM goes on from one, its agent puts that in its place.
func (w *Worker) certificate() ([]byte, error) {
	if w.network != nil {
		return w.network.certificate, nil
	}
	ca, err := authority.LoadOrCreate(w.cfg.Home.CA()) // a template is being made
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	return ca.CertPEM(), nil
}

// attach connects to the guest and shakes hands.
func (w *Worker) attach(ctx context.Context, vm hypervisor.Machine) (guestAgent, error) {
	carrier, err := vm.Carrier(ctx)
	if err != nil {
		return nil, err //nolint:wrapcheck // ErrGone is looked for
	}
	session, err := link.Connect(ctx, carrier, w.log)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what did not work
	}
	entropy := make([]byte, 64)
	_, _ = rand.Read(entropy) // never fails
	w.mu.Lock()
	spec := w.spec
	w.mu.Unlock()
	ca, err := w.certificate()
	if err != nil {
		return nil, err
	}
	a, err := guestlink.Attach(ctx, session, guestlink.Config{
		Log: w.log,
		Boot: proto.BootConfig{
			ID: spec.ID, Name: spec.Name, Hostname: hostname(spec.ID), Timezone: spec.Timezone, MachineID: spec.MachineID,
			Entropy: entropy, Env: spec.Env, Shares: w.mounts(), CA: ca,
		},
		Services: w.services(),
		OnLifecycle: func(req proto.LifecycleRequest) proto.LifecycleReply {
			return w.lifecycle(context.WithoutCancel(ctx), req) // ctx is that of the handshake
		},
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // says what did not work
	}
	return a, nil
}
