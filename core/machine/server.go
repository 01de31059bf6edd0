package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"capsem/core/buildinfo"
	"capsem/core/fault"
	"capsem/core/proto"
	"capsem/core/safesocket"
)

const (
	// maxConns bounds connections at once, helloTime the greeting of each.
	maxConns, helloTime = 1024, 5 * time.Second
	// lastWords is how long watchers get to take the last status.
	lastWords = 2 * time.Second
)

// server is the worker's socket.
type server struct {
	w     *Worker
	ctx   context.Context //nolint:containedctx // the life of all connections
	stop  context.CancelFunc
	slots chan struct{}
	conns sync.WaitGroup
	crowd crowd

	mu       sync.Mutex
	listener *safesocket.Listener
	path     string
}

// listen binds the socket and serves it until close.
func (w *Worker) listen(ctx context.Context) (*server, error) {
	path := w.cfg.Home.InstanceSocket(w.spec.ID)
	l, err := safesocket.Listen(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("listen for the service: %w", err)
	}
	s := &server{w: w, slots: make(chan struct{}, maxConns), listener: l, path: path}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.conns.Go(func() { s.accept(l) })
	return s, nil
}

// close stops listening, lets connections that only wait for the end take it, and breaks the others.
func (s *server) close() error {
	s.mu.Lock()
	l, path := s.listener, s.path
	s.mu.Unlock()
	err := l.Close()
	s.crowd.dismiss()
	timer := time.AfterFunc(lastWords, s.stop)
	defer timer.Stop()
	s.conns.Wait()
	s.stop()
	return errors.Join(err, safesocket.Remove(path))
}

// move takes another name: it listens there too, then no longer on the old one. Connections stay.
func (s *server) move(ctx context.Context, path string) error {
	l, err := safesocket.Listen(ctx, path)
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	s.mu.Lock()
	old, oldPath := s.listener, s.path
	s.listener, s.path = l, path
	s.mu.Unlock()
	s.conns.Go(func() { s.accept(l) })
	if err := errors.Join(old.Close(), safesocket.Remove(oldPath)); err != nil {
		s.w.log.Warn("the socket's old name stays", "error", err) // it is nobody's any more
	}
	return nil
}

func (s *server) accept(l *safesocket.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.w.log.Error("cannot take a connection", "error", err)
			select { // out of files or memory: that passes
			case <-time.After(100 * time.Millisecond):
				continue
			case <-s.ctx.Done():
				return
			}
		}
		select {
		case s.slots <- struct{}{}:
			s.conns.Go(func() {
				defer func() { <-s.slots }()
				s.serve(conn)
			})
		default:
			s.w.log.Warn("too many connections at once, refusing one")
			_ = conn.Close() // it sees that
		}
	}
}

// serve greets one connection and answers its requests, one after another.
func (s *server) serve(conn net.Conn) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c := &client{Conn: conn, r: bufio.NewReaderSize(conn, 16<<10)}
	defer c.ready()
	defer conn.Close()
	defer s.crowd.busy(c)
	if err := s.greet(c); err != nil {
		s.w.log.Debug("no proper greeting", "error", err)
		return
	}
	for {
		if !s.crowd.rest(c) {
			return
		}
		c.ready()
		var req proto.WorkerRequest
		if proto.ReadFrame(c, proto.MaxFrame, &req) != nil {
			return
		}
		s.crowd.busy(c)
		taken, err := s.answer(ctx, c, &req)
		if err != nil || taken {
			return
		}
	}
}

func (s *server) greet(c *client) error {
	if err := c.SetDeadline(time.Now().Add(helloTime)); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	var theirs proto.WorkerHello
	if err := proto.ReadFrame(c, proto.MaxHeader, &theirs); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	st, _, _ := s.w.board.get()
	mine := proto.WorkerHello{Protocol: proto.Version, Build: buildinfo.Version, PID: os.Getpid(), ID: st.ID, BootNonce: s.w.nonce}
	if err := proto.WriteFrame(c, mine); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	if theirs.Protocol != proto.Version {
		return fmt.Errorf("greet: the other side speaks protocol %d", theirs.Protocol)
	}
	return c.SetDeadline(time.Time{}) //nolint:wrapcheck // nothing to add
}

// answer does one request. taken says that the connection was used up by it.
func (s *server) answer(ctx context.Context, c *client, req *proto.WorkerRequest) (taken bool, err error) {
	if err := req.Validate(); err != nil {
		return false, refuse(c, fault.New(fault.Invalid, "%s", err))
	}
	if req.Op == proto.OpExec || req.Op == proto.OpTerminal || req.Op == proto.OpFile || req.Op == proto.OpForward {
		leave, err := s.w.activity.enter(s.w.idNow())
		if err != nil {
			return false, refuse(c, err)
		}
		defer leave()
	}
	switch req.Op {
	case proto.OpWatch:
		return true, s.watch(ctx, c)
	case proto.OpExec:
		return true, s.w.exec(ctx, c, req.Exec, req.Detach)
	case proto.OpTerminal:
		return true, s.w.terminal(ctx, c, req.Terminal)
	case proto.OpFile:
		return true, s.w.file(ctx, c, req.File)
	case proto.OpForward:
		return true, s.w.forward(ctx, c, req.ForwardPort)
	case proto.OpMCP:
		return true, s.w.ownerMCP(ctx, c, req.MCP)
	case proto.OpSnapshots:
		return true, s.w.ownerSnapshots(ctx, c, req.Snapshots)
	case proto.OpCredentials:
		err := s.w.takeCredentials(ctx, c, req.Credentials)
		if err != nil {
			return false, refuse(c, err)
		}
		return false, proto.WriteFrame(c, proto.WorkerReply{})
	default:
		if req.Op == proto.OpWaitJob || req.Op == proto.OpStop || req.Op == proto.OpKill {
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			defer cancel()
			c.lookout(cancel)
		}
		reply, err := s.unary(ctx, req)
		if err != nil {
			return false, refuse(c, err)
		}
		return false, proto.WriteFrame(c, reply)
	}
}

// unary does a request that one reply answers.
func (s *server) unary(ctx context.Context, req *proto.WorkerRequest) (reply proto.WorkerReply, err error) {
	w := s.w
	switch req.Op {
	case proto.OpStatus:
		st, _, _ := w.board.get()
		st.IdleNS = int64(w.activity.idle())
		reply.Status = &st
	case proto.OpJobs:
		reply.Jobs = w.jobs.List()
	case proto.OpJob:
		reply.Jobs, err = one(w.jobs.Get(req.Job))
	case proto.OpWaitJob:
		reply.Jobs, err = one(w.jobs.Wait(ctx, req.Job))
	case proto.OpCancelJob:
		err = w.jobs.Cancel(req.Job)
	case proto.OpStop:
		w.end(time.Duration(min(req.GraceMS, maxGraceMS))*time.Millisecond, false)
		err = w.waitFinal(ctx)
	case proto.OpKill:
		w.end(0, true)
		err = w.waitFinal(ctx)
	case proto.OpAnswer:
		reply.Text, err = w.answerQuestion(req.Answer)
	case proto.OpFork:
		err = w.fork(ctx, req.Dir)
	case proto.OpSuspend:
		if err = w.suspend(ctx, time.Duration(req.IdleMS)*time.Millisecond); err == nil {
			err = w.waitFinal(ctx)
		}
	case proto.OpPause:
		err = w.pause(ctx, true)
	case proto.OpResume:
		err = w.pause(ctx, false)
	case proto.OpRelocate:
		err = s.relocate(ctx, req)
	default: // Validate knows no others
		err = fault.New(fault.Invalid, "unknown operation %q", req.Op)
	}
	return reply, err
}

func one(j proto.Job, err error) ([]proto.Job, error) { return []proto.Job{j}, err }

// refuse answers with an error. The connection stays good for further requests.
func refuse(c *client, err error) error {
	code, message, hint := fault.Public(err)
	return proto.WriteFrame(c, proto.WorkerReply{Error: &proto.StreamError{Code: string(code), Message: message, Hint: hint}})
}

// watch sends each change of the status; the last one is always sent.
func (s *server) watch(ctx context.Context, c *client) error {
	if err := proto.WriteFrame(c, proto.WorkerReply{}); err != nil {
		return err //nolint:wrapcheck // the watcher left
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.lookout(cancel) // a watcher says nothing more
	for {
		st, changed, final := s.w.board.get()
		if err := proto.WriteFrame(c, st); err != nil || final {
			return errors.Join(err, c.Close())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
