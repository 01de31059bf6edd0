// Package lines is MCP's stdio transport with every bound in place: the length of a line, the depth of its JSON, how many requests may
// be in flight. What is wrong is answered, where an answer can be given, and the connection goes on.
package lines

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/proto"
)

// Bounds for an untrusted client.
const (
	// MaxLine bounds a line from a guest, MaxDepth the nesting of its JSON, MaxInFlight its requests without an answer.
	MaxLine, MaxDepth, MaxInFlight = 1 << 20, 64, 256
)

// Transport makes a connection of two byte streams. It may be connected once.
type Transport struct {
	// In and Out are closed with the connection.
	In  io.ReadCloser
	Out io.WriteCloser
	// MaxLine and MaxDepth bound what comes in.
	MaxLine, MaxDepth int
	// Serve says that the other side is a client: what is wrong is answered, and its requests are counted. Else the other side is a
	// server, and a wrong line ends the connection, because it is not known which call it was to answer.
	Serve bool
	// SetWriteDeadline, when set, bounds each write by WriteTime.
	SetWriteDeadline func(time.Time) error
	WriteTime        time.Duration
}

// Connect begins.
func (t *Transport) Connect(context.Context) (mcp.Connection, error) {
	return &conn{t: t, in: bufio.NewReaderSize(t.In, 32<<10), open: map[jsonrpc.ID]bool{}}, nil
}

// SupportsProtocolVersion says yes to all that the SDK knows.
func (t *Transport) SupportsProtocolVersion(string) bool { return true }

type conn struct {
	t  *Transport
	in *bufio.Reader

	writing sync.Mutex
	mu      sync.Mutex
	open    map[jsonrpc.ID]bool // requests of a client without an answer
	once    sync.Once
}

// SessionID is empty: there is one session.
func (c *conn) SessionID() string { return "" }

// Close closes both streams.
func (c *conn) Close() (err error) {
	c.once.Do(func() { err = errors.Join(c.t.In.Close(), c.t.Out.Close()) })
	return err
}

// Read gives the next sound message.
func (c *conn) Read(context.Context) (jsonrpc.Message, error) {
	for {
		line, err := c.line()
		if errors.Is(err, errLong) && c.t.Serve {
			if err := c.fail(jsonrpc.ID{}, jsonrpc.CodeInvalidRequest, fmt.Sprintf("a line of more than %d bytes", c.t.MaxLine)); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		msg, code, err := Decode(line, c.t.MaxDepth)
		if err == nil && c.t.Serve {
			code, err = c.admit(msg)
		}
		if err == nil {
			return msg, nil
		}
		if !c.t.Serve {
			return nil, fmt.Errorf("a message that is none: %w", err)
		}
		if err := c.fail(idOf(msg, err), code, err.Error()); err != nil {
			return nil, err
		}
	}
}

// errLong is a line over its limit; what is left of it has been read.
var errLong = errors.New("a line longer than allowed")

// line reads one line. One that is too long is skipped without taking memory.
func (c *conn) line() ([]byte, error) {
	var out []byte
	for {
		part, err := c.in.ReadSlice('\n')
		if len(out)+len(part) > c.t.MaxLine {
			for errors.Is(err, bufio.ErrBufferFull) && c.t.Serve {
				_, err = c.in.ReadSlice('\n')
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return nil, err //nolint:wrapcheck // io.EOF must stay
			}
			return nil, errLong
		}
		out = append(out, part...)
		switch {
		case err == nil:
			return out, nil
		case errors.Is(err, io.EOF) && len(bytes.TrimSpace(out)) > 0:
			return out, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err //nolint:wrapcheck // io.EOF must stay
		}
	}
}

// Decode reads one message. code is what to answer when it is not sound.
func Decode(line []byte, depth int) (msg jsonrpc.Message, code int64, err error) {
	switch {
	case !utf8.Valid(line):
		return nil, jsonrpc.CodeParseError, errors.New("not UTF-8 text")
	case proto.DeepJSON(line, depth):
		return nil, jsonrpc.CodeInvalidRequest, fmt.Errorf("JSON nested more than %d deep", depth)
	case !json.Valid(line):
		return nil, jsonrpc.CodeParseError, errors.New("not JSON")
	case line[0] == '[':
		return nil, jsonrpc.CodeInvalidRequest, errors.New("batches are not supported")
	}
	if msg, err = jsonrpc.DecodeMessage(line); err != nil {
		return nil, jsonrpc.CodeInvalidRequest, errors.New("not a JSON-RPC 2.0 message")
	}
	if r, ok := msg.(*jsonrpc.Request); ok && (r.Method == "" || len(r.Method) > 128) {
		return msg, jsonrpc.CodeInvalidRequest, errors.New("a request without a sensible method")
	}
	return msg, 0, nil
}

var errTwice = errors.New("the id of a request that has no answer yet")

// admit counts a request of a client.
func (c *conn) admit(msg jsonrpc.Message) (code int64, err error) {
	r, ok := msg.(*jsonrpc.Request)
	if !ok || !r.IsCall() {
		return 0, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.open[r.ID]:
		return jsonrpc.CodeInvalidRequest, errTwice
	case len(c.open) >= MaxInFlight:
		return CodeBusy, fmt.Errorf("more than %d requests at once", MaxInFlight)
	}
	c.open[r.ID] = true
	return 0, nil
}

// CodeBusy answers a request too many at once.
const CodeBusy = -32013

// idOf is the id to answer a message with that is not sound. A second use of an id gets none, since the answer is not the first one's.
func idOf(msg jsonrpc.Message, err error) jsonrpc.ID {
	if r, ok := msg.(*jsonrpc.Request); ok && !errors.Is(err, errTwice) {
		return r.ID
	}
	return jsonrpc.ID{}
}

// fail answers with an error.
func (c *conn) fail(id jsonrpc.ID, code int64, text string) error {
	body, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0", "id": id.Raw(), "error": map[string]any{"code": code, "message": text},
	})
	if err != nil {
		return fmt.Errorf("encode error: %w", err)
	}
	return c.write(body)
}

// Write sends a message.
func (c *conn) Write(_ context.Context, msg jsonrpc.Message) error {
	body, err := jsonrpc.EncodeMessage(msg)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if r, ok := msg.(*jsonrpc.Response); ok {
		c.mu.Lock()
		delete(c.open, r.ID)
		c.mu.Unlock()
	}
	return c.write(body)
}

func (c *conn) write(body []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.t.SetWriteDeadline != nil {
		if err := c.t.SetWriteDeadline(time.Now().Add(c.t.WriteTime)); err != nil {
			return err //nolint:wrapcheck // the caller says what it wrote
		}
	}
	if _, err := c.t.Out.Write(append(body, '\n')); err != nil {
		_ = c.Close() // half a line is no message
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}
