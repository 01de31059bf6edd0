package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
	"capsem/core/mcp/peer"
	"capsem/core/mcp/sandbox"
)

const (
	// maxPrograms bounds the programs at once.
	maxPrograms = 200
	// graceTime is how long a program may go on when its input has ended.
	graceTime = 2 * time.Second
	// maxLogLines is how many lines a minute of a program's standard error are logged.
	maxLogLines = 60
)

// program is one process that was started.
type program struct {
	server string
	cmd    *exec.Cmd
	// done is closed when it has ended.
	done chan struct{}
	err  error
	once sync.Once
}

// wait waits for it and says how it ended.
func (p *program) wait() error {
	<-p.done
	return p.err
}

// end has it end: its input has, or is about to.
func (p *program) end(now bool) {
	if now {
		p.once.Do(func() {})
		p.kill()
		return
	}
	p.once.Do(func() {
		go func() {
			timer := time.NewTimer(graceTime)
			defer timer.Stop()
			select {
			case <-p.done:
			case <-timer.C:
				p.kill()
			}
		}()
	})
}

// kill ends it and what it has started.
func (p *program) kill() {
	select {
	case <-p.done:
	default:
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL) // it may have ended
	}
}

// start starts a process in a group of its own. What it writes to its standard error is logged.
func (h *Host) start(server string, cmd *exec.Cmd) (*program, error) {
	errors, to, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start MCP server %s: %w", server, err)
	}
	cmd.Stderr = to
	isolate(cmd)
	if err := cmd.Start(); err != nil {
		_, _ = errors.Close(), to.Close()
		return nil, fmt.Errorf("start MCP server %s: %w", server, err)
	}
	_ = to.Close() // the child has it
	p := &program{server: server, cmd: cmd, done: make(chan struct{})}
	h.work.Go(func() {
		defer errors.Close()
		h.copyLog(server, errors)
	})
	h.work.Go(func() {
		p.err = cmd.Wait()
		close(p.done)
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // what it has started and left behind
	})
	return p, nil
}

// copyLog logs what a program says, so much of it.
func (h *Host) copyLog(server string, from io.Reader) {
	r := bufio.NewReaderSize(from, 4<<10)
	count, since := 0, time.Now()
	for {
		line, err := r.ReadSlice('\n')
		if len(line) > 0 {
			if time.Since(since) > time.Minute {
				count, since = 0, time.Now()
			}
			if count++; count <= maxLogLines {
				h.cfg.Log.Info("an MCP server says", "server", server, "text", string(line[:min(len(line), 500)]))
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// personality is the binary under one of its names.
func (h *Host) personality(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(h.ctx, h.cfg.Exe)
	cmd.Args = append([]string{name}, args...)
	return cmd
}

// startAggregator starts the aggregator, with two sockets and nothing else.
func (h *Host) startAggregator() (*program, net.Conn, *net.UnixConn, error) {
	conn, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, nil, nil, err
	}
	descriptors, passed, err := socketPair(unix.SOCK_DGRAM)
	if err != nil {
		return nil, nil, nil, errors.Join(err, conn.Close(), theirs.Close())
	}
	cmd := h.personality("capsem-mcp-aggregator")
	sandbox.Wrap(cmd, sandbox.NetworkOnly)
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = theirs, theirs, []*os.File{passed}
	p, err := h.start("aggregator", cmd)
	_, _ = theirs.Close(), passed.Close() // the child has them
	if err != nil {
		return nil, nil, nil, errors.Join(err, conn.Close(), descriptors.Close())
	}
	return p, conn, descriptors, nil
}

// open starts the program of a server and passes its pipes to the aggregator.
func (h *Host) open(t aggregator.Target) error {
	d, err := h.definition(t.Server)
	if err != nil {
		return err
	}
	h.mu.Lock()
	l, many := h.current, len(h.programs) >= maxPrograms
	h.mu.Unlock()
	if l == nil {
		return errors.New("the aggregator is ending")
	}
	if many {
		return errors.New("too many MCP servers at once")
	}
	in, to, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start MCP server %s: %w", t.Server, err)
	}
	defer in.Close()
	defer to.Close()
	from, out, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start MCP server %s: %w", t.Server, err)
	}
	defer from.Close()
	defer out.Close()
	p, err := h.startServer(&d, t.Server, in, out)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.programs[t.Number] = p
	h.mu.Unlock()
	h.work.Go(func() {
		<-p.done
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.programs, t.Number)
	})
	if err := aggregator.SendPipes(l.descriptors, t.Number, from, to); err != nil {
		p.end(true)
		return fmt.Errorf("pass pipes of MCP server %s: %w", t.Server, err)
	}
	return nil
}

// startServer starts a server on pipes.
func (h *Host) startServer(d *mcp.Definition, name string, in, out *os.File) (*program, error) {
	if name == mcp.Local && d.Name == "" {
		return h.startBuiltin(in, out)
	}
	spec, err := h.programOf(h.ctx, d)
	if err != nil {
		return nil, err
	}
	body, err := peer.Marshal(spec)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start MCP server %s: %w", name, err)
	}
	defer read.Close()
	cmd := h.personality("capsem-mcp-aggregator", "launch")
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = []string{}, "/", in, out, []*os.File{read}
	p, err := h.start(name, cmd)
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	h.work.Go(func() {
		_, _ = write.Write(body) // a child that does not read it dies of that
		_ = write.Close()
	})
	return p, nil
}

// programOf is a server's program, with the secrets of its environment.
func (h *Host) programOf(ctx context.Context, d *mcp.Definition) (*sandbox.Program, error) {
	if err := sandbox.Supported(); err != nil {
		return nil, err //nolint:wrapcheck // said as it is
	}
	path, err := sandbox.Lookup(d.Command)
	if err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	dir := filepath.Join(h.cfg.Dir, d.Name)
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return nil, fmt.Errorf("make directory of MCP server %s: %w", d.Name, err)
	}
	p := &sandbox.Program{Path: path, Args: d.Args, Dir: dir, Read: d.Read, Write: d.Write, Network: d.Network}
	if err := p.Validate(h.cfg.Keep...); err != nil {
		return nil, fmt.Errorf("MCP server %s: %w", d.Name, err)
	}
	env, err := h.resolved(ctx, d.Env)
	if err != nil {
		return nil, err
	}
	for key, value := range map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": dir, "TMPDIR": filepath.Join(dir, "tmp"), "LANG": "C.UTF-8",
	} {
		if _, set := env[key]; !set {
			env[key] = value
		}
	}
	for key, value := range env {
		p.Env = append(p.Env, key+"="+value)
	}
	return p, nil
}

// startBuiltin starts the built-in server, with a socket on which it asks the worker.
func (h *Host) startBuiltin(in, out *os.File) (*program, error) {
	conn, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	cmd := h.personality("capsem-mcp-builtin")
	sandbox.Wrap(cmd, sandbox.Nothing)
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = []string{}, "/", in, out, []*os.File{theirs}
	if h.cfg.SessionDir != "" {
		cmd.Env = append(cmd.Env, "CAPSEM_SESSION_DIR="+h.cfg.SessionDir)
	}
	p, err := h.start(mcp.Local, cmd)
	_ = theirs.Close() // the child has it
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	asking := peer.New(h.ctx, conn, h.cfg.Builtin)
	h.work.Go(func() {
		<-p.done
		asking.Close()
	})
	return p, nil
}

// end ends a program whose pipes the aggregator has closed.
func (h *Host) end(number uint64) {
	h.mu.Lock()
	p := h.programs[number]
	h.mu.Unlock()
	if p != nil {
		p.end(false)
	}
}

// endAll ends all programs.
func (h *Host) endAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.programs {
		p.end(true)
	}
}

// socketPair is a pair of unix sockets, of which the other is for a child.
func socketPair(kind int) (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make sockets: %w", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make sockets: %w", err), theirs.Close())
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.Join(errors.New("make sockets: not unix sockets"), conn.Close(), theirs.Close())
	}
	return c, theirs, nil
}
