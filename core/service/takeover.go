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
	s.settleCheckpoints()
	s.settleUnnamed(ctx)
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

// adoptTime is how long a worker may take to answer a service that takes it over: it may just have started.
const adoptTime = 5 * time.Second

func (s *Service) adoptWorker(ctx context.Context, instance string, pid int) error {
	v := s.byInstance(instance)
	if v == nil {
		return errors.New("its VM is unknown")
	}
	ctx, cancel := context.WithTimeout(ctx, adoptTime)
	defer cancel()
	conn, err := s.hail(ctx, instance)
	if err != nil {
		return err
	}
	l, err := s.identify(conn, instance, pid)
	if err == nil {
		err = s.adoptConn(ctx, v, l, conn)
	}
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	return nil
}

// hail connects to a worker that holds its lock, until it answers or ctx ends.
func (s *Service) hail(ctx context.Context, instance string) (*workerclient.Conn, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := workerclient.Dial(ctx, s.opts.Home.InstanceSocket(instance))
		if err == nil || errors.Is(err, workerclient.ErrProtocol) {
			return conn, err //nolint:wrapcheck // a fault
		}
		if _, held, look := guard.Holder(s.opts.Home.InstanceLock(instance)); look == nil && !held {
			return nil, err //nolint:wrapcheck // as above
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err //nolint:wrapcheck // as above
		}
	}
}

// identify makes sure that the worker that answers is the one that holds the lock.
func (s *Service) identify(conn *workerclient.Conn, instance string, pid int) (*life, error) {
	if pid == 0 {
		pid = conn.Hello().PID
	}
	if conn.Hello().PID != pid {
		return nil, fmt.Errorf("process %d answers, and %d holds the lock", conn.Hello().PID, pid)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("find worker: %w", err)
	}
	return &life{pid: pid, process: process, instance: instance, done: make(chan struct{})}, nil
}

// adoptConn takes over the worker at the other end of conn. That it answers here proves that l's handle is on it.
func (s *Service) adoptConn(ctx context.Context, v *vm, l *life, conn *workerclient.Conn) error {
	w := v.view()
	if l.instance != w.spec.ID { // a persist was cut short
		if err := s.relocate(ctx, conn, l, w); err != nil {
			return err
		}
	}
	reply, err := conn.Call(ctx, proto.WorkerRequest{Op: proto.OpStatus})
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if reply.Status == nil || !lifecycle.Known(reply.Status.State) {
		return errors.New("it does not say what state its VM is in")
	}
	v.update(func() { v.state, v.status, v.lastError = reply.Status.State, *reply.Status, "" })
	s.log.Info("took over a worker", "vm", w.spec.ID, "pid", l.pid, "state", reply.Status.State)
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

const (
	// reapGrace is how long a worker that cannot be taken over may take to power its guest off; then it is killed.
	reapGrace = 5 * time.Second
	// reapTime is how long its lock may stay held after that.
	reapTime = 5 * time.Second
)

// reap ends the process that holds an instance's lock, and waits until it is gone.
func (s *Service) reap(ctx context.Context, instance string, pid int) {
	if pid == 0 {
		s.log.Error("a worker that does not answer holds a lock without saying which process it is", "instance", instance)
		return
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		s.log.Error("cannot find a worker", "instance", instance, "pid", pid, "error", err)
		return
	}
	held := func() bool { // asked after the handle was taken: it is on the holder
		holder, held, err := guard.Holder(s.opts.Home.InstanceLock(instance))
		return err == nil && held && holder == pid
	}
	for _, step := range []struct {
		signal os.Signal
		time   time.Duration
	}{{syscall.SIGTERM, reapGrace}, {syscall.SIGKILL, reapTime}} {
		if !held() {
			return
		}
		if err := process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			s.log.Error("cannot end a worker", "instance", instance, "pid", pid, "error", err)
		}
		if waitWhile(ctx, held, step.time) {
			return
		}
	}
	s.log.Error("a worker that was killed still holds its lock", "instance", instance, "pid", pid)
}

// waitWhile waits until something no longer holds; false says that it still does after most.
func waitWhile(ctx context.Context, holds func() bool, most time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// settleUnnamed clears away the unnamed VMs that have no worker any more.
func (s *Service) settleUnnamed(ctx context.Context) {
	for _, v := range s.all() {
		if v.view().spec.Name == "" && s.adoptStray(ctx, v) != nil {
			s.reapStray(ctx, v)
		}
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
