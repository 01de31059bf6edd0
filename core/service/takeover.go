package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"capsem/core/api"
	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/guard"
	"capsem/core/lifecycle"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

// takeOver builds the table from what is on disk and from the workers that run.
func (s *Service) takeOver(ctx context.Context) error {
	home := s.opts.Home
	deleted, err := beingDeleted(home.PersistentDir())
	if err != nil {
		return err
	}
	// The list is written without what was being deleted before the last trace of that goes.
	reg, err := s.loadRegistry()
	if err != nil {
		return err
	}
	if err := s.loadNamed(reg, deleted); err != nil {
		return err
	}
	if err := s.loadUnnamed(); err != nil {
		return err
	}
	if err := s.saveRegistry(); err != nil {
		return err
	}
	err = errors.Join(atomicfile.Sweep(home.Run()), sweepDirs(home.Sessions()), sweepDirs(home.PersistentDir()))
	if err != nil {
		s.log.Warn("cannot sweep what a crash left", "error", err)
	}
	if err := s.takeOverWorkers(ctx); err != nil {
		return err
	}
	s.settleUnnamed()
	return nil
}

// takeOverWorkers looks at every lock and socket of a worker.
func (s *Service) takeOverWorkers(ctx context.Context) error {
	entries, err := os.ReadDir(s.opts.Home.Instances())
	if err != nil {
		return fmt.Errorf("read instances: %w", err)
	}
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for _, e := range entries {
		id := strings.TrimSuffix(strings.TrimSuffix(e.Name(), ".sock"), ".lock")
		if seen[id] || api.CheckName(id) != nil {
			continue
		}
		seen[id] = true
		wg.Go(func() { s.takeOverWorker(ctx, id) })
	}
	wg.Wait()
	return nil
}

// takeOverWorker adopts the worker of one instance if it answers and its VM is known, else ends it and removes what it left.
func (s *Service) takeOverWorker(ctx context.Context, instance string) {
	pid, held, err := guard.Holder(s.opts.Home.InstanceLock(instance))
	if err != nil {
		s.log.Warn("cannot look at the lock of a worker", "instance", instance, "error", err)
		return
	}
	if held {
		if err = s.adoptWorker(ctx, instance, pid); err == nil {
			return
		}
		s.log.Warn("ending a worker that cannot be taken over", "instance", instance, "pid", pid, "error", err)
		s.reap(ctx, instance, pid)
	}
	s.clearInstance(instance)
}

func (s *Service) adoptWorker(ctx context.Context, instance string, pid int) error {
	v := s.byInstance(instance)
	if v == nil {
		return errors.New("its VM is unknown")
	}
	ctx, cancel := context.WithTimeout(ctx, reapTime)
	defer cancel()
	conn, err := workerclient.Dial(ctx, s.opts.Home.InstanceSocket(instance))
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	hello := conn.Hello()
	if pid == 0 {
		pid = hello.PID
	}
	if hello.PID != pid {
		return errors.Join(fmt.Errorf("process %d answers, and %d holds the lock", hello.PID, pid), conn.Close())
	}
	l := &life{pid: pid, instance: instance, done: make(chan struct{})}
	w := v.view()
	if instance != w.spec.ID { // a persist was cut short
		if err := s.relocate(ctx, conn, l, w); err != nil {
			return errors.Join(err, conn.Close())
		}
	}
	reply, err := conn.Call(ctx, proto.WorkerRequest{Op: proto.OpStatus})
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	if reply.Status == nil || !lifecycle.Known(reply.Status.State) {
		return errors.Join(errors.New("it does not say what state its VM is in"), conn.Close())
	}
	v.update(func() { v.state, v.status, v.lastError = reply.Status.State, *reply.Status, "" })
	s.log.Info("took over a worker", "vm", w.spec.ID, "pid", pid, "state", reply.Status.State)
	s.adopt(v, l, conn)
	return nil
}

// byInstance finds the VM whose worker bears that name: its id, or the one before a persist that was cut short.
func (s *Service) byInstance(instance string) *vm {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.vms[instance]; ok {
		return v
	}
	for _, v := range s.vms {
		if v.view().spec.FormerID == instance {
			return v
		}
	}
	return nil
}

// reapTime is how long a worker may take to answer a service that takes it over, and how long its lock may stay held after it was
// killed.
const reapTime = 5 * time.Second

// reap ends the process that holds an instance's lock, and waits until it is gone.
func (s *Service) reap(ctx context.Context, instance string, pid int) {
	if pid == 0 {
		s.log.Error("a worker that does not answer holds a lock without saying which process it is", "instance", instance)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reapTime)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		holder, held, err := guard.Holder(s.opts.Home.InstanceLock(instance))
		if err != nil || !held || holder != pid {
			return
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.log.Error("cannot kill a worker", "instance", instance, "pid", pid, "error", err)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.log.Error("a worker that was killed still holds its lock", "instance", instance, "pid", pid)
			return
		}
	}
}

// settleUnnamed clears away the unnamed VMs that have no worker any more.
func (s *Service) settleUnnamed() {
	for _, v := range s.all() {
		w := v.view()
		if w.spec.Name != "" || w.life != nil {
			continue
		}
		if err := s.clearAway(v, w.state != lifecycle.Stopped); err != nil {
			s.log.Error("cannot clear away a VM", "vm", w.spec.ID, "error", fault.Line(err))
		}
	}
}

// relocate tells a worker the new name and directory of its VM, and notes under which name it answers from now on.
func (s *Service) relocate(ctx context.Context, conn *workerclient.Conn, l *life, w view) error {
	req := proto.WorkerRequest{Op: proto.OpRelocate, Dir: w.dir.Dir(), ID: w.spec.ID, Name: w.spec.Name}
	if _, err := conn.Call(ctx, req); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if _, held, err := guard.Holder(s.opts.Home.InstanceLock(w.spec.ID)); err == nil && held {
		l.instance = w.spec.ID
	}
	return nil
}
