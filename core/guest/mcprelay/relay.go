//go:build linux

// Package mcprelay is the command capsem-mcp-server in the guest: an MCP server on standard input and output for the agents there, of
// which every message goes to the host and back. When the link begins anew (after a suspend, a rewind, in a fork) so does the
// session, without the agent: what had no answer is answered with an error, and nothing is sent twice.
package mcprelay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/proto"
)

const (
	// maxLine bounds a line from the agent, maxAnswer one from the host.
	maxLine, maxAnswer = 1 << 20, 32 << 20
	// maxPending bounds the requests without an answer.
	maxPending = 1024
	// codeLost is the error for a request whose answer was lost.
	codeLost = -32001
	// firstPause and longestPause are between attempts to reach the host; patience is how long they are made.
	firstPause, longestPause, patience = 50 * time.Millisecond, 2 * time.Second, 2 * time.Minute
)

// Relay is one run of the command.
type Relay struct {
	// Socket is the agent's. In and Out are the other side.
	Socket string
	In     io.Reader
	Out    io.Writer
	// Process is who started it.
	Process proto.ProcessClaim

	writing sync.Mutex

	mu      sync.Mutex
	pending map[string]bool // ids, as JSON
	// initialize and initialized begin a session; greeted is the id of the one that is sent again, whose answer nobody waits for.
	initialize, initialized []byte
	greeted                 string
}

// message is what the relay looks at.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
}

// Run relays until the agent hangs up.
func (r *Relay) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.pending = map[string]bool{}
	lines := make(chan []byte)
	ended := make(chan error, 1)
	go func() { // it ends with the process: a read of standard input cannot be ended
		ended <- r.readAgent(ctx, lines)
		close(lines)
	}()
	pause := firstPause
	for first := true; ; first = false {
		conn, err := r.dial(ctx, first)
		if err != nil {
			r.failPending("the host cannot be reached")
			return err
		}
		began := time.Now()
		over, err := r.session(ctx, conn, lines, first)
		if over {
			return <-ended
		}
		if err != nil {
			return err
		}
		r.failPending("the link to the host began anew: whether the call was carried out is not known, and it is not repeated")
		if pause = min(2*pause, longestPause); time.Since(began) > longestPause {
			pause = firstPause
		}
		wait(ctx, pause) // a host that hangs up at once is not asked without end
	}
}

// readAgent hands on what the agent sends, line by line.
func (r *Relay) readAgent(ctx context.Context, lines chan<- []byte) error {
	in := bufio.NewReaderSize(r.In, 64<<10)
	for {
		line, err := readLine(in, maxLine)
		if errors.Is(err, errLong) {
			if err := r.answer(json.RawMessage("null"), -32600, fmt.Sprintf("a line of more than %d bytes", maxLine)); err != nil {
				return err
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from the agent: %w", err)
		}
		select {
		case lines <- line:
		case <-ctx.Done():
			return nil
		}
	}
}

// dial reaches the host. The first time an error is told at once, unless the link is only about to come up.
func (r *Relay) dial(ctx context.Context, first bool) (net.Conn, error) {
	deadline := time.Now().Add(patience)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		conn, err := r.open(ctx)
		if err == nil {
			return conn, nil
		}
		if errors.Is(err, unix.EACCES) {
			return nil, errors.New("only root may use the owner's MCP servers")
		}
		if time.Now().After(deadline) || ctx.Err() != nil || first && errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("the host cannot be reached: %w", err)
		}
		wait(ctx, pause)
	}
}

func wait(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (r *Relay) open(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", r.Socket)
	if err != nil {
		return nil, fmt.Errorf("reach the agent of the guest: %w", err)
	}
	err = proto.WriteFrame(conn, proto.StreamHeader{Port: proto.PortMCP, Process: r.Process.Name})
	if err == nil {
		err = proto.WriteFrame(conn, proto.MCPOpen{Process: r.Process})
	}
	r.mu.Lock()
	greeting := append(append([]byte{}, r.initialize...), r.initialized...)
	if len(r.initialize) > 0 {
		var m message
		if json.Unmarshal(r.initialize, &m) == nil {
			r.greeted = string(m.ID)
		}
	}
	r.mu.Unlock()
	if err == nil && len(greeting) > 0 {
		_, err = conn.Write(greeting)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open stream: %w", err), conn.Close())
	}
	return conn, nil
}

// session relays over one connection. over says that the agent has hung up.
func (r *Relay) session(ctx context.Context, conn net.Conn, lines <-chan []byte, first bool) (over bool, err error) {
	defer conn.Close()
	down := make(chan error, 1)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		down <- r.fromHost(conn)
	}()
	defer func() { _ = conn.Close(); <-heard }()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				r.drain(heard)
				return true, nil
			}
			if sendable, err := r.note(line); err != nil || !sendable {
				if err != nil {
					return false, err
				}
				continue
			}
			_, _ = conn.Write(line) // the reader notices that it is over
		case err := <-down:
			if first && err != nil && r.silent() {
				return false, fmt.Errorf("the host does not serve MCP: %w", err)
			}
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx) //nolint:wrapcheck // nobody reads it
		}
	}
}

// drainTime is how long answers are waited for when the agent has hung up.
const drainTime = 10 * time.Second

// drain waits for the answers to what was asked: the host ends the session, and what runs in it, when it hears of the end.
func (r *Relay) drain(heard <-chan struct{}) {
	timer, tick := time.NewTimer(drainTime), time.NewTicker(5*time.Millisecond)
	defer timer.Stop()
	defer tick.Stop()
	for {
		r.mu.Lock()
		waiting := len(r.pending)
		r.mu.Unlock()
		if waiting == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-heard:
			return
		case <-timer.C:
			return
		}
	}
}

// silent reports whether the agent has said nothing yet.
func (r *Relay) silent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.initialize == nil
}

// note remembers what is needed to begin anew, and what waits for an answer. A request too many is answered here.
func (r *Relay) note(line []byte) (send bool, err error) {
	var m message
	if json.Unmarshal(line, &m) != nil {
		return true, nil // the host says what is wrong with it
	}
	r.mu.Lock()
	switch m.Method {
	case "initialize":
		r.initialize = line
	case "notifications/initialized":
		r.initialized = line
	}
	full := false
	if m.Method != "" && len(m.ID) > 0 && string(m.ID) != "null" {
		if full = len(r.pending) >= maxPending; !full {
			r.pending[string(m.ID)] = true
		}
	}
	r.mu.Unlock()
	if full {
		return false, r.answer(m.ID, -32600, "too many requests at once")
	}
	return true, nil
}

// fromHost hands on what the host sends.
func (r *Relay) fromHost(conn io.Reader) error {
	in := bufio.NewReaderSize(conn, 64<<10)
	for {
		line, err := readLine(in, maxAnswer)
		if err != nil {
			return err
		}
		var m message
		if json.Unmarshal(line, &m) == nil && m.Method == "" && len(m.ID) > 0 {
			r.mu.Lock()
			waits := r.pending[string(m.ID)]
			delete(r.pending, string(m.ID))
			again := !waits && r.greeted != "" && string(m.ID) == r.greeted
			if again {
				r.greeted = ""
			}
			r.mu.Unlock()
			if again {
				continue // the answer to a greeting that was sent again
			}
		}
		if err := r.write(line); err != nil {
			return err
		}
	}
}

// failPending answers what will get no answer.
func (r *Relay) failPending(why string) {
	r.mu.Lock()
	pending := r.pending
	r.pending = map[string]bool{}
	r.mu.Unlock()
	for id := range pending {
		if r.answer(json.RawMessage(id), codeLost, why) != nil {
			return // nobody reads
		}
	}
}

func (r *Relay) answer(id json.RawMessage, code int, text string) error {
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": id, "error": map[string]any{"code": code, "message": text}})
	if err != nil {
		return fmt.Errorf("encode error: %w", err)
	}
	return r.write(append(body, '\n'))
}

func (r *Relay) write(line []byte) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	if _, err := r.Out.Write(line); err != nil {
		return fmt.Errorf("write to the agent: %w", err)
	}
	return nil
}

// errLong is a line over its limit; what is left of it has been read.
var errLong = errors.New("a line longer than allowed")

// readLine reads one line with its end. One that is too long is skipped without taking memory.
func readLine(in *bufio.Reader, most int) ([]byte, error) {
	var out []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(out)+len(part) > most {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
			if err != nil {
				return nil, err //nolint:wrapcheck // io.EOF must stay
			}
			return nil, errLong
		}
		out = append(out, part...)
		if err == nil {
			return out, nil
		}
		if errors.Is(err, io.EOF) && len(out) > 0 {
			return append(out, '\n'), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err //nolint:wrapcheck // as above
		}
	}
}
