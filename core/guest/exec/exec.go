//go:build linux

// Package exec runs the commands that the host sends: any number at once, each on a stream of its own.
package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"capsem/core/guest/environ"
	"capsem/core/guest/frames"
	"capsem/core/guest/layout"
	"capsem/core/guest/proc"
	"capsem/core/link"
	"capsem/core/proto"
)

// drainGrace is how long the output of background processes is still passed on after the command itself has ended.
const drainGrace = 100 * time.Millisecond

// Server runs commands. Make it with New.
type Server struct {
	log    *slog.Logger
	groups *proc.Cgroups
	null   *os.File
	pool   frames.Pool

	mu  sync.Mutex
	env map[string]string
}

// New returns a Server. groups may be nil.
func New(groups *proc.Cgroups, log *slog.Logger) (*Server, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("open null device: %w", err)
	}
	return &Server{log: log, groups: groups, null: null}, nil
}

// SetEnv sets the environment that the VM gives to every command, on top of environ.Base.
func (s *Server) SetEnv(env map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.env = env
}

// Close releases what New took.
func (s *Server) Close() error {
	if err := s.null.Close(); err != nil {
		return fmt.Errorf("close null device: %w", err)
	}
	return nil
}

// Serve runs the one command of a stream. It returns when the command has ended and the host has closed the stream, which
// it then closes too. The command is killed when the host closes the stream before its end or when ctx ends; when the whole
// link is lost it goes on, with its output thrown away.
func (s *Server) Serve(ctx context.Context, st io.ReadWriteCloser) {
	defer st.Close()
	var req proto.ExecRequest
	if err := proto.ReadFrame(st, proto.MaxFrame, &req); err != nil {
		s.log.Debug("exec: no request", "err", err)
		return
	}
	r := &run{server: s, req: &req, stream: st, out: frames.NewWriter(st)}
	status, err := r.do(ctx)
	if err != nil {
		status = notStarted(err)
	}
	s.report(r.out, status)
	frames.Leave(st)
	r.receiver.Wait()
}

func (s *Server) report(out *frames.Writer, status proto.ExitStatus) {
	if err := out.SendJSON(proto.KindExit, status); err != nil {
		s.log.Debug("exec: cannot report the end of a command", "err", err)
	}
}

func notStarted(err error) proto.ExitStatus {
	code := proc.CodeCannotRun
	if se, ok := errors.AsType[*proc.StartError](err); ok {
		code = se.Code
	}
	return proto.ExitStatus{Code: code, Error: err.Error()}
}

func (s *Server) spec(req *proto.ExecRequest) proc.Spec {
	s.mu.Lock()
	vm := s.env
	s.mu.Unlock()
	argv := req.Argv
	if len(argv) == 0 {
		argv = []string{"bash", "-c", req.Command}
	}
	dir := req.Dir
	if dir == "" {
		dir = layout.Home
	}
	return proc.Spec{Argv: argv, Dir: dir, Env: environ.Merge(environ.Base(), vm, req.Env), TTY: req.PTY != nil}
}

// run is one command.
type run struct {
	server *Server
	req    *proto.ExecRequest
	stream io.ReadWriteCloser
	out    *frames.Writer

	proc     *proc.Process
	files    *stdio
	outputs  []*frames.Output
	input    *frames.Input
	receiver sync.WaitGroup

	mu       sync.Mutex
	timedOut bool
}

// do starts the command, moves its bytes and waits for its end.
func (r *run) do(ctx context.Context) (proto.ExitStatus, error) {
	err := r.req.Validate()
	if err == nil {
		err = r.start()
	}
	if err != nil {
		r.receiver.Go(func() { frames.AwaitClose(r.stream) })
		return proto.ExitStatus{}, err
	}
	r.receiver.Go(r.receive)
	proc.Expendable(r.proc.PID())
	stop := context.AfterFunc(ctx, r.kill)
	defer stop()
	if r.req.TimeoutMS > 0 {
		limit := time.AfterFunc(time.Duration(r.req.TimeoutMS)*time.Millisecond, r.expire)
		defer limit.Stop()
	}
	status := r.proc.Wait()
	for _, o := range r.outputs {
		o.Finish(drainGrace)
	}
	if r.input != nil {
		r.input.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timedOut {
		status.TimedOut = true
		status.Error = fmt.Sprintf("the time limit of %v ran out", time.Duration(r.req.TimeoutMS)*time.Millisecond)
	}
	return status, nil
}

func (r *run) start() error {
	files, err := r.open()
	if err != nil {
		return err
	}
	spec := r.server.spec(r.req)
	spec.Files, spec.Group = files.child, r.server.groups.Take()
	p, err := proc.Start(spec)
	files.closeChild()
	if err != nil {
		files.closeParent()
		return err
	}
	r.proc, r.files = p, files
	if err := r.out.SendJSON(proto.KindStarted, proto.Started{Job: r.req.ID, PID: p.PID()}); err != nil {
		r.server.log.Debug("exec: cannot report a start", "err", err)
	}
	if files.terminal != nil {
		r.outputs = append(r.outputs, frames.Copy(files.terminal, proto.KindStdout, r.out, &r.server.pool))
		r.input = frames.Feed(files.keyboard)
		return nil
	}
	r.outputs = append(r.outputs,
		frames.Copy(files.out, proto.KindStdout, r.out, &r.server.pool), frames.Copy(files.err, proto.KindStderr, r.out, &r.server.pool))
	if files.in != nil {
		r.input = frames.Feed(files.in)
	}
	return nil
}

func (r *run) kill() {
	if err := r.proc.Kill(); err != nil {
		r.server.log.Warn("exec: cannot kill a command", "err", err)
	}
}

func (r *run) expire() {
	r.mu.Lock()
	r.timedOut = true
	r.mu.Unlock()
	r.kill()
}

// receive takes input, window sizes and signals until the stream ends. A host that closes it before the end of the command
// wants the command killed; a lost link leaves it running.
func (r *run) receive() {
	src := frames.NewSource(r.stream)
	for {
		kind, data, err := src.Next()
		if err == nil {
			err = r.handle(src, kind, data)
		}
		if err == nil {
			continue
		}
		if errors.Is(err, link.ErrSessionEnded) {
			if r.input != nil {
				r.input.CloseAfter()
			}
			return
		}
		r.kill()
		_ = r.stream.Close() // frees whoever waits for room in the stream
		return
	}
}

func (r *run) handle(src *frames.Source, kind proto.Kind, data []byte) error {
	switch kind {
	case proto.KindStdin:
		return r.feed(src, data)
	case proto.KindSignal:
		if len(data) != 1 || data[0] == 0 || data[0] > 64 {
			return proto.ErrBadStreamFrame
		}
		return r.proc.Signal(syscall.Signal(data[0])) //nolint:wrapcheck // says what it did
	case proto.KindResize:
		return r.resize(data)
	}
	return proto.ErrBadStreamFrame
}

func (r *run) feed(src *frames.Source, data []byte) error {
	switch {
	case r.input == nil:
		return nil // nobody asked for input
	case len(data) > 0:
		return r.input.Put(data, src) //nolint:wrapcheck // says what it did
	case r.files.terminal != nil:
		return r.input.Put([]byte{endOfTransmission}, src) //nolint:wrapcheck // says what it did
	}
	r.input.CloseAfter()
	return nil
}

// endOfTransmission is what ends the input of a program on a terminal.
const endOfTransmission = 4

func (r *run) resize(data []byte) error {
	size, err := frames.ParseSize(data)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	if r.files.terminal == nil {
		return nil
	}
	return frames.SetSize(r.files.terminal, size) //nolint:wrapcheck // says what it did
}
