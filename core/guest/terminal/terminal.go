//go:build linux

// Package terminal keeps named shells on pseudo-terminals. Any number of viewers look at one; each sees the last 64 KiB
// first, then every byte; a shell goes on when its viewers leave.
package terminal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"capsem/core/guest/environ"
	"capsem/core/guest/frames"
	"capsem/core/guest/layout"
	"capsem/core/guest/proc"
	"capsem/core/proto"
)

// maxSessions bounds the shells of one VM.
const maxSessions = 64

// Manager keeps the sessions. Make it with New.
type Manager struct {
	log    *slog.Logger
	groups *proc.Cgroups
	bashrc string
	home   string

	mu       sync.Mutex
	env      map[string]string
	sessions map[string]*session
	wg       sync.WaitGroup
}

// New returns a Manager. groups may be nil.
func New(groups *proc.Cgroups, log *slog.Logger) *Manager {
	return &Manager{log: log, groups: groups, bashrc: layout.Bashrc, home: layout.Home, sessions: map[string]*session{}}
}

// SetEnv sets the environment that the VM gives to sessions started from now on, on top of environ.Base.
func (m *Manager) SetEnv(env map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.env = env
}

// Running is the number of sessions.
func (m *Manager) Running() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sessions)
}

// Close ends every session and waits.
func (m *Manager) Close() {
	m.mu.Lock()
	for _, s := range m.sessions {
		if err := s.proc.Kill(); err != nil {
			m.log.Warn("terminal: cannot end a session", "err", err)
		}
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// Serve shows a session to the viewer of one stream, until the viewer leaves or the session ends, and closes the stream.
func (m *Manager) Serve(ctx context.Context, st io.ReadWriteCloser) {
	defer st.Close()
	var open proto.TerminalOpen
	err := proto.ReadFrame(st, proto.MaxFrame, &open)
	if err != nil {
		m.log.Debug("terminal: no request", "err", err)
		return
	}
	if open.Peek {
		m.peek(st, open.Session)
		return
	}
	v := newViewer(open.Size)
	s, err := m.view(&open, v)
	if err != nil {
		m.refuse(st, err)
		return
	}
	var sender sync.WaitGroup
	sender.Go(func() { v.send(ctx, st) })
	stop := context.AfterFunc(ctx, func() { _ = st.Close() }) // frees the reader
	defer stop()
	var reader sync.WaitGroup
	reader.Go(func() { m.receive(s, v, st); v.drop() })
	<-v.gone
	s.detach(v)
	_ = st.Close() // frees the reader and the sender
	reader.Wait()
	sender.Wait()
}

// peek sends what a session showed last, if there is one, and disturbs nothing.
func (m *Manager) peek(st io.ReadWriteCloser, name string) {
	if name == "" {
		name = mainSession
	}
	m.mu.Lock()
	s := m.sessions[name]
	m.mu.Unlock()
	out := frames.NewWriter(st)
	if s != nil {
		for rest := s.past(); len(rest) > 0; {
			n := min(len(rest), proto.MaxChunk)
			if err := out.Send(proto.KindStdout, rest[:n]); err != nil {
				m.log.Debug("terminal: cannot show the past", "err", err)
				return
			}
			rest = rest[n:]
		}
	}
	if err := out.SendJSON(proto.KindExit, proto.ExitStatus{}); err != nil {
		m.log.Debug("terminal: cannot end a peek", "err", err)
		return
	}
	frames.Leave(st)
	frames.AwaitClose(st)
}

// refuse tells the viewer why there is no session.
func (m *Manager) refuse(st io.ReadWriteCloser, err error) {
	status := proto.ExitStatus{Code: proc.CodeCannotRun, Error: err.Error()}
	if se, ok := errors.AsType[*proc.StartError](err); ok {
		status.Code = se.Code
	}
	if err := frames.NewWriter(st).SendJSON(proto.KindExit, status); err != nil {
		m.log.Debug("terminal: cannot refuse", "err", err)
		return
	}
	frames.Leave(st)
	frames.AwaitClose(st)
}

// view attaches a viewer to the session it names, started if need be.
func (m *Manager) view(open *proto.TerminalOpen, v *viewer) (*session, error) {
	if err := open.Validate(); err != nil {
		return nil, err //nolint:wrapcheck // shown as it is
	}
	name := open.Session
	if name == "" {
		name = mainSession
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sessions[name]; s != nil && s.attach(v) {
		return s, nil
	}
	if len(m.sessions) >= maxSessions {
		return nil, fmt.Errorf("%d terminal sessions are running already; end one first", len(m.sessions))
	}
	s, err := startSession(m.spec(open), open.Size)
	if err != nil {
		return nil, err
	}
	s.attach(v)
	m.sessions[name] = s
	m.wg.Go(func() {
		s.run()
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.sessions[name] == s {
			delete(m.sessions, name)
		}
	})
	return s, nil
}

func (m *Manager) spec(open *proto.TerminalOpen) proc.Spec {
	argv := []string{"bash", "-l"}
	if _, err := os.Stat(m.bashrc); err == nil {
		argv = []string{"bash", "--rcfile", m.bashrc, "-i"}
	}
	term := map[string]string{}
	if open.Term != "" {
		term["TERM"] = open.Term
	}
	return proc.Spec{Argv: argv, Dir: m.home, Env: environ.Merge(environ.Base(), m.env, term, open.Env), Group: m.groups.Take()}
}

// receive takes a viewer's input and window sizes until its stream ends.
func (m *Manager) receive(s *session, v *viewer, st io.Reader) {
	src := frames.NewSource(st)
	for {
		kind, data, err := src.Next()
		if err != nil {
			return
		}
		switch kind {
		case proto.KindStdin:
			err = s.typed(v, data, src)
		case proto.KindResize:
			var size proto.WindowSize
			if size, err = frames.ParseSize(data); err == nil {
				s.resize(v, size)
			}
		default:
			err = proto.ErrBadStreamFrame
		}
		if err != nil {
			m.log.Debug("terminal: dropping a viewer", "err", err)
			return
		}
	}
}
