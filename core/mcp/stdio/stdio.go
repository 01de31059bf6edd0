// Package stdio is MCP's transport over lines of JSON, as the SDK's is, but for a peer that is not trusted to behave: a line that is
// no message, too long, too deep or out of turn is answered with an error, and what comes after it is served as before.
package stdio

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/proto"
)

const (
	// MaxLine bounds a line in bytes: a text file of the largest size (api.MaxTextFile) fits unless nearly all of it is escaped.
	MaxLine = 16 << 20
	// MaxDepth bounds the nesting of a message.
	MaxDepth = 64
	// MaxInFlight bounds the calls of a peer that have no answer yet.
	MaxInFlight = 256
	// maxBatch bounds the messages in one line.
	maxBatch = 64
)

// codeBusy is the error of a call that is one too many.
const codeBusy = -32000

// Transport is one peer. It is used once.
type Transport struct {
	// Reader and Writer are the two directions.
	Reader io.ReadCloser
	Writer io.Writer
	// Ended, if set, is called once when there is nothing more to read.
	Ended func()
	// Done, if set, ends the connection when it is closed, as the end of Reader does: calls that run are cancelled.
	Done <-chan struct{}
	// MaxLine bounds a line in bytes; 0 means the constant of that name.
	MaxLine int
}

// Connect implements mcp.Transport.
func (t *Transport) Connect(context.Context) (mcp.Connection, error) {
	c := &conn{
		closer: t.Reader, w: t.Writer, done: t.Done, maxLine: t.MaxLine,
		lines: make(chan line), closed: make(chan struct{}), inFlight: map[jsonrpc.ID]*batch{},
	}
	if c.maxLine <= 0 {
		c.maxLine = MaxLine
	}
	// The goroutine ends with the stream. Close cannot wait for it: a read of standard input need not end when it is closed.
	go c.scan(bufio.NewReaderSize(t.Reader, 64<<10), t.Ended)
	return c, nil
}

// line is one line without its end, or why there is none.
type line struct {
	text []byte
	// long says that it was over the limit and left out.
	long bool
	err  error
}

// conn is a connection to one peer.
type conn struct {
	closer  io.Closer
	lines   chan line
	maxLine int
	once    sync.Once
	closed  chan struct{}
	done    <-chan struct{}
	// queue is the rest of the last batch; only Read uses it.
	queue []jsonrpc.Message

	// mu guards what follows and every write.
	mu sync.Mutex
	w  io.Writer
	// inFlight are the peer's calls without an answer, each with its batch if it came in one.
	inFlight map[jsonrpc.ID]*batch
}

// batch is an array of messages that came in one line: its answers go back in one.
type batch struct {
	waiting int
	answers []json.RawMessage
}

// scan reads lines until the end.
func (c *conn) scan(r *bufio.Reader, ended func()) {
	if ended != nil {
		defer ended()
	}
	for {
		l := readLine(r, c.maxLine)
		select {
		case c.lines <- l:
		case <-c.closed:
			return
		}
		if l.err != nil {
			return
		}
	}
}

// readLine reads one line of at most limit bytes, and past the end of a longer one.
func readLine(r *bufio.Reader, limit int) line {
	var text []byte
	for long := false; ; {
		part, err := r.ReadSlice('\n')
		if !long && len(text)+len(part) > limit+1 {
			long, text = true, nil
		}
		if !long {
			text = append(text, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil && (long || len(bytes.TrimSpace(text)) == 0 || !errors.Is(err, io.EOF)) {
			return line{err: err}
		}
		return line{text: bytes.TrimSpace(text), long: long}
	}
}

// Read implements mcp.Connection: it returns the next message that can be served.
func (c *conn) Read(ctx context.Context) (jsonrpc.Message, error) {
	for {
		if len(c.queue) > 0 {
			msg := c.queue[0]
			c.queue = c.queue[1:]
			return msg, nil
		}
		var l line
		select {
		case <-ctx.Done():
			return nil, ctx.Err() //nolint:wrapcheck // the SDK compares it
		case <-c.closed:
			return nil, io.EOF
		case <-c.done:
			return nil, io.EOF
		case l = <-c.lines:
		}
		if l.err != nil {
			return nil, l.err // the SDK compares it with io.EOF
		}
		if err := c.take(l); err != nil {
			return nil, err
		}
	}
}

// take puts the messages of a line into the queue. Its error is that of writing an answer.
func (c *conn) take(l line) error {
	if l.long {
		return c.refuse(nil, jsonrpc.CodeInvalidRequest, fmt.Sprintf("a line is longer than %d bytes", c.maxLine))
	}
	if len(l.text) == 0 {
		return nil
	}
	if !json.Valid(l.text) {
		return c.refuse(nil, jsonrpc.CodeParseError, "a line is not JSON")
	}
	if proto.DeepJSON(l.text, MaxDepth) {
		return c.refuse(nil, jsonrpc.CodeInvalidRequest, fmt.Sprintf("a message is nested deeper than %d", MaxDepth))
	}
	if l.text[0] != '[' {
		_, err := c.accept(l.text, nil)
		return err
	}
	var all []json.RawMessage
	if err := json.Unmarshal(l.text, &all); err != nil || len(all) == 0 || len(all) > maxBatch {
		return c.refuse(nil, jsonrpc.CodeInvalidRequest, fmt.Sprintf("a batch has 1 to %d messages", maxBatch))
	}
	b := &batch{waiting: 1} // one for this function, so that it is not sent before all are in
	for _, text := range all {
		if _, err := c.accept(text, b); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settle(b, nil)
}

// accept queues one message, or answers it with an error.
func (c *conn) accept(text []byte, b *batch) (bool, error) {
	msg, err := jsonrpc.DecodeMessage(text)
	if err != nil {
		return false, c.refuseIn(b, idOf(text), jsonrpc.CodeInvalidRequest, "this is no JSON-RPC 2.0 message")
	}
	req, ok := msg.(*jsonrpc.Request)
	if !ok || !req.ID.IsValid() {
		c.queue = append(c.queue, msg)
		return true, nil
	}
	if !exact(idOf(text)) { // the SDK would answer with another number
		return false, c.refuseIn(b, idOf(text), jsonrpc.CodeInvalidRequest, "an id is a text or a whole number below 2^53")
	}
	if req.Method == "" {
		return false, c.refuseIn(b, idOf(text), jsonrpc.CodeInvalidRequest, "a request names no method")
	}
	c.mu.Lock()
	_, twice := c.inFlight[req.ID]
	full := len(c.inFlight) >= MaxInFlight
	if !twice && !full {
		c.inFlight[req.ID] = b
		if b != nil {
			b.waiting++
		}
	}
	c.mu.Unlock()
	switch {
	case twice: // an answer with this id would be taken for that of the first call
		return false, c.refuseIn(b, nil, jsonrpc.CodeInvalidRequest, "this id is in use by a call without an answer")
	case full:
		return false, c.refuseIn(b, idOf(text), codeBusy, fmt.Sprintf("%d calls have no answer yet; wait for one", MaxInFlight))
	}
	c.queue = append(c.queue, msg)
	return true, nil
}

// idOf is the id of a message as it was written, nil where there is none that could be one.
func idOf(text []byte) json.RawMessage {
	var msg struct {
		ID json.RawMessage `json:"id"`
	}
	if err := json.Unmarshal(text, &msg); err != nil || len(msg.ID) == 0 || len(msg.ID) > 256 || msg.ID[0] == '{' || msg.ID[0] == '[' {
		return nil
	}
	return msg.ID
}

// exact reports whether an id is one that comes back as it was.
func exact(id json.RawMessage) bool {
	if len(id) == 0 {
		return false
	}
	if id[0] == '"' {
		return true
	}
	n, err := strconv.ParseInt(string(id), 10, 64)
	return err == nil && n > -1<<53 && n < 1<<53
}

// refusal is an error answer; the SDK's own cannot have the id null.
type refusal struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Error   jsonrpc.Error   `json:"error"`
}

func (c *conn) refuse(id json.RawMessage, code int64, message string) error {
	return c.refuseIn(nil, id, code, message)
}

func (c *conn) refuseIn(b *batch, id json.RawMessage, code int64, message string) error {
	if id == nil {
		id = json.RawMessage("null")
	}
	text, err := json.Marshal(refusal{"2.0", id, jsonrpc.Error{Code: code, Message: message}})
	if err != nil {
		return fmt.Errorf("encode refusal: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b != nil {
		b.answers = append(b.answers, text)
		return nil
	}
	return c.writeLine(text)
}

// Write implements mcp.Connection.
func (c *conn) Write(ctx context.Context, msg jsonrpc.Message) error {
	if err := ctx.Err(); err != nil {
		return err //nolint:wrapcheck // the SDK compares it
	}
	text, err := jsonrpc.EncodeMessage(msg)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if resp, ok := msg.(*jsonrpc.Response); ok {
		b := c.inFlight[resp.ID]
		delete(c.inFlight, resp.ID)
		if b != nil {
			return c.settle(b, text)
		}
	}
	return c.writeLine(text)
}

// settle adds an answer to a batch, and sends all when it was the last. The caller holds mu.
func (c *conn) settle(b *batch, answer []byte) error {
	if answer != nil {
		b.answers = append(b.answers, answer)
	}
	if b.waiting--; b.waiting > 0 || len(b.answers) == 0 {
		return nil
	}
	text, err := json.Marshal(b.answers)
	if err != nil {
		return fmt.Errorf("encode batch: %w", err)
	}
	return c.writeLine(text)
}

// writeLine writes one line at once. The caller holds mu.
func (c *conn) writeLine(text []byte) error {
	if _, err := c.w.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

// Close implements mcp.Connection.
func (c *conn) Close() error {
	var err error
	c.once.Do(func() {
		close(c.closed)
		err = c.closer.Close()
	})
	return err //nolint:wrapcheck // that of whoever gave the stream
}

// SessionID implements mcp.Connection: there is one session.
func (*conn) SessionID() string { return "" }
