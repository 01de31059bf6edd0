package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/image"
	"capsem/core/lifecycle"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/tree"
	"capsem/core/workerclient"
)

const (
	// answerTime is how long a worker may take until it answers on its socket: it only has to start.
	answerTime = 20 * time.Second
	// knock is the pause between two tries to reach a worker that is starting.
	knock = 2 * time.Millisecond
	// maxProcessLog is the size at which a VM's process.log is begun anew when its worker starts.
	maxProcessLog = 8 << 20
)

// launch starts the worker of a VM in state Created, Stopped, Suspended or Defunct, and returns when it answers. The caller has
// the VM's turn. It is not cut short by the caller's context: a half-started worker helps nobody.
func (s *Service) launch(ctx context.Context, v *vm) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	before := v.view()
	var refused error
	v.update(func() {
		if refused = v.move(lifecycle.Booting); refused == nil {
			v.status, v.lastError, v.idle = proto.WorkerStatus{}, "", false
		}
	})
	if refused != nil {
		return notRunning(before)
	}
	l, conn, err := s.startWorker(ctx, before)
	if err != nil {
		v.update(func() { v.state, v.lastError = standing(before.dir, lifecycle.Defunct), fault.Line(err) })
		return err
	}
	s.adopt(v, l, conn)
	return nil
}

// startWorker starts the process and greets it.
func (s *Service) startWorker(ctx context.Context, w view) (*life, *workerclient.Conn, error) {
	s.opts.step("start worker")
	if err := markStarted(w); err != nil {
		return nil, nil, err
	}
	cmd, err := s.spawn(w)
	if err != nil {
		return nil, nil, err
	}
	reaped := make(chan struct{})
	var ended error
	go func() { // ends with the worker, which may outlive this service
		ended = cmd.Wait()
		close(reaped)
	}()
	s.opts.step("greet worker")
	l := &life{pid: cmd.Process.Pid, process: cmd.Process, instance: w.spec.ID, reaped: reaped, done: make(chan struct{})}
	conn, err := s.greet(ctx, l)
	if err == nil {
		err = s.introduce(ctx, conn, w)
	}
	if err == nil {
		return l, conn, nil
	}
	_ = cmd.Process.Kill() // it may have ended by itself
	<-reaped
	why := lastWords(w.dir)
	if st, ok := readStatus(w.dir.Status()); ok && st.PID == l.pid && st.LastError != "" {
		why = st.LastError
	} else if why == "" && ended != nil {
		why = ended.Error()
	}
	s.clearInstance(w.spec.ID)
	return nil, nil, fault.Wrap(err, fault.Unavailable, "VM %s did not start: %s", w.spec.ID, clip(why, 16<<10)).
		WithHint("see capsem logs %s and capsem doctor", w.spec.ID)
}

// markStarted writes where the worker will leave its last status that it was started. If nothing else is found there later, the
// worker died; and what an earlier one said is not taken for what this one says.
func markStarted(w view) error { return note(w, lifecycle.Booting, "") }

// note writes the state of a VM where its worker leaves it.
func note(w view, state lifecycle.State, why string) error {
	text, err := json.Marshal(proto.WorkerStatus{ID: w.spec.ID, Name: w.spec.Name, State: state, LastError: why})
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	return atomicfile.Write(w.dir.Status(), text, 0o600) //nolint:wrapcheck // says what and where
}

// spawn starts the process in a session of its own, with nothing of ours but where its VM is.
func (s *Service) spawn(w view) (*exec.Cmd, error) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if info, err := os.Stat(w.dir.ProcessLog()); err == nil && info.Size() > maxProcessLog {
		flags |= os.O_TRUNC
	}
	out, err := os.OpenFile(w.dir.ProcessLog(), flags|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the worker's log: %w", err)
	}
	defer out.Close()
	argv := s.opts.Worker
	cmd := exec.Command(argv[0], append(append([]string{}, argv[1:]...), "--home", s.opts.Home.Dir(), "--dir", w.dir.Dir())...) //nolint:noctx // it outlives us on purpose
	if s.opts.WorkerName != "" {
		cmd.Args[0] = s.opts.WorkerName
	}
	cmd.Env = append([]string{}, s.opts.WorkerEnv...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	if newVMDir(w.dir) {
		if ram := s.warmth(&w.spec); ram != nil {
			defer ram.Close()
			cmd.ExtraFiles = []*os.File{ram}
			cmd.Args = append(cmd.Args, "--template-ram", "3")
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fault.Wrap(err, fault.Internal, "cannot start a worker").WithHint("see capsem doctor")
	}
	return cmd, nil
}

// greet connects to a worker that is starting, until it answers, ends or its time is up.
func (s *Service) greet(ctx context.Context, l *life) (*workerclient.Conn, error) {
	tick := time.NewTicker(knock)
	defer tick.Stop()
	for {
		conn, err := workerclient.Dial(ctx, s.opts.Home.InstanceSocket(l.instance))
		if err == nil {
			if conn.Hello().PID == l.pid {
				return conn, nil
			}
			err = errors.Join(fmt.Errorf("process %d answers in its place", conn.Hello().PID), conn.Close())
		}
		select {
		case <-tick.C:
		case <-l.reaped:
			return nil, errors.Join(errors.New("it has ended"), err)
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// adopt makes a worker that answers the VM's, and watches it.
func (s *Service) adopt(v *vm, l *life, conn *workerclient.Conn) {
	v.update(func() { v.life = l })
	s.records.begun(v.view().spec)
	s.wg.Go(func() { s.watch(v, l, conn) })
}

// prepare makes the directory of a new VM: complete under its name, or not there at all.
func (s *Service) prepare(w view) error {
	temp := w.dir.Dir() + newSuffix
	s.opts.step("make directory")
	if err := tree.Remove(temp); err != nil {
		return fmt.Errorf("make VM directory: %w", err)
	}
	ours := false // the directory under its name is
	err := os.Mkdir(temp, 0o700)
	if err == nil {
		err = os.Mkdir(temp+"/workspace", 0o700)
	}
	if err == nil {
		s.opts.step("describe VM")
		err = writeSpec(temp+"/vm.json", w.spec)
	}
	if err == nil && w.spec.Policy != "" {
		err = atomicfile.Write(paths.VM(temp).Policy(), []byte(w.spec.Policy), 0o600)
	}
	if err == nil && w.spec.Image != "" {
		s.opts.step("copy image")
		var i *image.Image
		if i, err = image.Images(s.opts.Home).Find(w.spec.Image); err == nil {
			err = i.Place(temp, w.spec.ForkedMemory)
		}
	}
	if err == nil {
		s.opts.step("name directory")
		err = os.Rename(temp, w.dir.Dir())
		ours = err == nil
	}
	if err == nil {
		err = atomicfile.SyncDir(w.dir.Dir() + "/..")
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fault.Wrap(err, fault.NoSpace, "no space left for VM %s", w.spec.ID).WithHint("free some space on that disk")
	}
	if err != nil {
		err = errors.Join(err, tree.Remove(temp))
		if ours { // one that was there before is somebody's
			err = errors.Join(err, tree.Remove(w.dir.Dir()))
		}
		return err
	}
	return nil
}
