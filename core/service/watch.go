package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"capsem/core/checkpoint"
	"capsem/core/fault"
	"capsem/core/guard"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/safesocket"
	"capsem/core/workerclient"
)

// leaveTime is how long a worker may take to exit after it has stopped answering; then it is killed.
const leaveTime = 10 * time.Second

// watch follows one worker until it ends, then deals with its end. It returns early, leaving all as it is, when the service does.
func (s *Service) watch(v *vm, l *life, conn *workerclient.Conn) {
	for s.ctx.Err() == nil {
		s.follow(v, l, conn)
		if conn = s.reconnect(v, l); conn == nil && s.ctx.Err() == nil && s.ended(v, l) {
			close(l.done)
			return
		}
	}
}

// instance is the name of a worker's socket and lock.
func (v *vm) instance(l *life) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return l.instance
}

// follow takes what the worker says until the connection ends.
func (s *Service) follow(v *vm, l *life, conn *workerclient.Conn) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer conn.Close()
	states, err := conn.Watch(ctx)
	if err != nil {
		return
	}
	for st := range states {
		s.heard(v, l, st)
	}
}

// heard takes one status from a worker.
func (s *Service) heard(v *vm, l *life, st proto.WorkerStatus) {
	st.LastError, st.Step = clip(st.LastError, 16<<10), clip(st.Step, 200)
	var refused error
	var tokens []proto.RefusedToken
	var from lifecycle.State
	news := false
	v.update(func() {
		from = v.state
		if st.PID != l.pid {
			refused = fmt.Errorf("it says that it is process %d", st.PID)
			return
		}
		if refused = v.move(st.State); refused != nil {
			return
		}
		news = !bytes.Equal(v.status.Questions, st.Questions)
		tokens = newlyRefused(v.status.Refused, st.Refused)
		v.status = st
		if st.LastError != "" {
			v.lastError = st.LastError
		}
	})
	if news {
		s.questionsChanged()
	}
	for _, t := range tokens {
		s.wg.Go(func() { s.renewRefused(s.ctx, t) })
	}
	switch {
	case refused != nil:
		s.log.Warn("status of a worker refused", "vm", v.id(), "pid", l.pid, "error", refused)
	case from != st.State:
		s.log.Info("state", "vm", v.id(), "from", from, "to", st.State)
	}
}

func clip(text string, most int) string { return text[:min(len(text), most)] }

// reconnect connects to the worker again: a connection can break while the worker is well. It returns nil when the worker has
// ended, by itself or, if it neither ends nor answers, by force; and when the service ends.
func (s *Service) reconnect(v *vm, l *life) *workerclient.Conn {
	timer := time.NewTimer(leaveTime)
	defer timer.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.alive(v, l) {
		conn, err := workerclient.Dial(s.ctx, s.opts.Home.InstanceSocket(v.instance(l)))
		if err == nil && conn.Hello().PID == l.pid {
			return conn
		}
		if err == nil {
			_ = conn.Close() // somebody else's
		}
		select {
		case <-s.ctx.Done():
			return nil
		case <-l.reaped: // never for one that we took over
		case <-timer.C:
			s.log.Warn("worker neither answers nor ends: killing it", "vm", v.id(), "pid", l.pid)
			s.kill(l)
		case <-tick.C:
		}
	}
	return nil
}

// alive reports whether the worker's process runs. For one that is no child of ours its lock is the proof.
func (s *Service) alive(v *vm, l *life) bool {
	if l.reaped != nil {
		select {
		case <-l.reaped:
			return false
		default:
			return true
		}
	}
	pid, held, err := guard.Holder(s.opts.Home.InstanceLock(v.instance(l)))
	return err != nil || held && (pid == l.pid || pid == 0)
}

// kill ends a worker's process, whose hypervisor goes with it.
func (s *Service) kill(l *life) {
	if err := l.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.log.Error("cannot kill worker", "pid", l.pid, "error", err)
	}
}

// ended deals with the end of a worker: where the VM goes from there, and what of it is kept. False says that it has not ended:
// its VM was being named, which moves its lock.
func (s *Service) ended(v *vm, l *life) bool {
	v.settling.Lock()
	defer v.settling.Unlock()
	if s.alive(v, l) {
		return false
	}
	s.clearInstance(v.instance(l))
	now := v.view()
	v.mu.Lock()
	wanted, destroy := l.wanted, l.destroy
	v.mu.Unlock()
	to, why := outcome(now, l, wanted)
	to = standing(now.dir, to)
	v.update(func() {
		v.life = nil
		v.status = proto.WorkerStatus{}
		v.state = to
		v.lastError = why
	})
	s.records.over(now.spec, to)
	s.questionsChanged()
	s.log.Info("worker ended", "vm", now.spec.ID, "pid", l.pid, "state", to, "error", why)
	if !destroy && now.spec.Name != "" {
		s.noteEnd(now, to, why)
		return true
	}
	keep := !destroy && to == lifecycle.Defunct
	if err := s.clearAway(v, keep); err != nil {
		s.log.Error("cannot clear away a VM", "vm", now.spec.ID, "error", err)
	}
	return true
}

// noteEnd leaves the state of a named VM for the next service, where the worker had no time to, or had another view of its end.
func (s *Service) noteEnd(w view, state lifecycle.State, why string) {
	if st, ok := readStatus(w.dir.Status()); ok && st.State == state && st.LastError == why {
		return
	}
	if err := note(w, state, why); err != nil {
		s.log.Warn("cannot note how a VM ended", "vm", w.spec.ID, "state", state, "error", err)
	}
}

// clearAway takes a VM without a worker out of the table and off the disk; keep leaves its logs where failed ones are.
func (s *Service) clearAway(v *vm, keep bool) error {
	now := v.view()
	// A worker that nobody knows of, started by a service that was killed then, does not lose its directory while it runs; and
	// one that starts now finds nothing.
	lock, err := guard.Acquire(s.opts.Home.InstanceLock(now.spec.ID))
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, "VM %s cannot be destroyed: %s", now.spec.ID, err).WithHint("try again")
	}
	defer func() {
		if err := lock.Release(); err != nil {
			s.log.Warn("cannot release the lock of a VM", "vm", now.spec.ID, "error", err)
		}
	}()
	defer s.remove(v)
	if keep {
		return s.keepFailed(now)
	}
	if now.spec.Name == "" {
		return discard(&s.opts, now.dir, nil)
	}
	return discard(&s.opts, now.dir, func() error {
		s.remove(v)
		return s.saveRegistry()
	})
}

// outcome is the state of a VM whose worker has ended, and for a Defunct one why. What the worker wrote last counts more than
// what it said last: it may have had no time to say it.
func outcome(now view, l *life, wanted bool) (lifecycle.State, string) {
	if wanted {
		return lifecycle.Stopped, ""
	}
	last, ok := readStatus(now.dir.Status())
	if ok && last.PID != l.pid {
		ok = false
	}
	if !ok {
		last = now.status
		last.State = now.state
	}
	switch last.State {
	case lifecycle.Stopped, lifecycle.Suspended:
		return last.State, ""
	case lifecycle.Defunct:
		if last.LastError != "" {
			return lifecycle.Defunct, clip(last.LastError, 16<<10)
		}
	}
	why := "its worker died"
	if words := lastWords(now.dir); words != "" {
		why += ": " + words
	}
	return lifecycle.Defunct, why
}

// standing is the state of a VM that failed: one that still has the state it was to go on from has lost nothing, and is suspended as
// before.
func standing(dir paths.VM, failed lifecycle.State) lifecycle.State {
	if failed == lifecycle.Defunct && checkpoint.Exists(dir.Dir()) {
		return lifecycle.Suspended
	}
	return failed
}

// clearInstance removes what a worker that ended without doing so left behind.
func (s *Service) clearInstance(instance string) {
	// Taken, not only looked at: a worker that starts meanwhile must not be left with a lock whose file is gone.
	lock, err := guard.Acquire(s.opts.Home.InstanceLock(instance))
	if errors.Is(err, guard.ErrHeld) {
		return
	}
	if err == nil {
		err = errors.Join(safesocket.Remove(s.opts.Home.InstanceSocket(instance)), lock.Release())
	}
	if err != nil {
		s.log.Warn("cannot remove what a worker left", "instance", instance, "error", err)
	}
}

// endLife asks a worker to end, waits until that has been dealt with, and uses force after grace.
func (s *Service) endLife(ctx context.Context, v *vm, req proto.WorkerRequest, grace time.Duration, destroy bool) error {
	now := v.view()
	l := now.life
	if l == nil {
		return nil
	}
	v.update(func() {
		l.wanted = true
		l.destroy = l.destroy || destroy
		if v.move(lifecycle.Stopping) != nil {
			s.log.Debug("stopping a VM that is not up", "state", v.state)
		}
	})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if conn, err := workerclient.Dial(ctx, s.opts.Home.InstanceSocket(l.instance)); err == nil {
		if _, err := conn.Call(ctx, req); err != nil {
			s.log.Info("worker did not take a request to end", "vm", now.spec.ID, "error", fault.Line(err))
		}
		_ = conn.Close() // nothing is to come
	} else {
		s.kill(l)
	}
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
	case <-s.ctx.Done():
		return fault.New(fault.Unavailable, "the service is stopping").WithHint("try again")
	}
	s.log.Warn("worker did not end in time: killing it", "vm", now.spec.ID, "pid", l.pid)
	s.kill(l)
	select {
	case <-l.done:
		return nil
	case <-time.After(leaveTime):
		return fault.New(fault.Internal, "the worker of VM %s, process %d, cannot be killed", now.spec.ID, l.pid)
	case <-s.ctx.Done():
		return fault.New(fault.Unavailable, "the service is stopping").WithHint("try again")
	}
}
