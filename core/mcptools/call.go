package mcptools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/client"
	"capsem/core/fault"
)

const (
	// maxAnswer bounds the JSON of one answer in bytes; what is larger is kept, and the error says where.
	maxAnswer = 1 << 20
	// progressEvery is the least time between two progress notifications of a call.
	progressEvery = 150 * time.Millisecond
)

// effect is what a tool does to the world, as its annotations say.
type effect int

const (
	// reads changes nothing, adds only makes something new, keeps changes something to a state that is the same each time, changes may
	// do anything, and destroys takes something away for good.
	reads effect = iota
	adds
	keeps
	changes
	destroys
)

// tool describes a tool to a client.
type tool struct {
	name, title, about string
	does               effect
	// open says that what it does may reach beyond the VM.
	open bool
	// defaults are those of its parameters.
	defaults map[string]any
}

func (t tool) annotations() *mcp.ToolAnnotations {
	destroying := t.does == changes || t.does == destroys
	return &mcp.ToolAnnotations{
		Title: t.title, ReadOnlyHint: t.does == reads, IdempotentHint: t.does == reads || t.does == keeps || t.does == destroys,
		DestructiveHint: &destroying, OpenWorldHint: &t.open,
	}
}

// schemas are types whose JSON is not what their Go type says.
var schemas = &jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{
	reflect.TypeFor[[]byte](): {Types: []string{"null", "string"}, ContentEncoding: "base64"},
	// Anything would be the schema "true", which the reference SDK for Node refuses.
	reflect.TypeFor[any](): {Types: []string{"null", "boolean", "number", "string", "object", "array"}},
}}

// nothing is the parameters of a tool that has none.
type nothing struct{}

// done is the answer of a tool that only does something.
type done struct {
	Success bool `json:"success"`
}

// add adds a tool: do gets its parameters, which fit the schema of In, and a client of a service that answers.
func add[In, Out any](s *Server, t tool, do func(ctx context.Context, c *call, in In) (Out, error)) {
	in, err := jsonschema.For[In](schemas)
	if err != nil {
		s.broken = append(s.broken, fmt.Errorf("parameters of %s: %w", t.name, err))
		return
	}
	for name, value := range t.defaults {
		text, err := json.Marshal(value)
		if p := in.Properties[name]; p == nil || err != nil {
			s.broken = append(s.broken, fmt.Errorf("default of %s of %s: no such parameter, or %w", name, t.name, err))
			return
		}
		in.Properties[name].Default = text
	}
	out, err := jsonschema.For[Out](schemas)
	if err != nil {
		s.broken = append(s.broken, fmt.Errorf("answer of %s: %w", t.name, err))
		return
	}
	def := &mcp.Tool{Name: t.name, Title: t.title, Description: t.about, Annotations: t.annotations(), InputSchema: in, OutputSchema: out}
	mcp.AddTool(s.mcp, def, func(ctx context.Context, req *mcp.CallToolRequest, params In) (*mcp.CallToolResult, Out, error) {
		c := &call{s: s, req: req, start: time.Now()}
		reply, err := answer(ctx, c, t.name, params, do)
		c.log(ctx, err, t.name, time.Since(c.start))
		if err != nil {
			var none Out
			return nil, none, &failure{err}
		}
		return c.result, reply, nil
	})
}

func answer[In, Out any](ctx context.Context, c *call, name string, in In, do func(context.Context, *call, In) (Out, error)) (Out, error) {
	var none Out
	var err error
	if c.svc, err = c.s.service(ctx); err != nil {
		return none, err
	}
	out, err := do(ctx, c, in)
	if err != nil {
		return none, err
	}
	text, err := json.Marshal(out)
	if err != nil {
		return none, fmt.Errorf("encode answer: %w", err)
	}
	if len(text) > maxAnswer {
		id := c.s.outputs.keepText(text)
		return none, fault.New(fault.TooLarge, "the answer of %s is %d bytes, more than one message should carry", name, len(text)).
			WithHint("ask for less, or read it in parts: capsem_read_output with output %q", id)
	}
	if len(c.links) > 0 {
		c.result = &mcp.CallToolResult{Content: append([]mcp.Content{&mcp.TextContent{Text: string(text)}}, c.links...)}
	}
	return out, nil
}

// call is one call of a tool.
type call struct {
	s   *Server
	req *mcp.CallToolRequest
	svc *client.Client
	// links point to what an answer left out.
	links  []mcp.Content
	result *mcp.CallToolResult

	start time.Time

	mu   sync.Mutex
	last time.Time
}

// link adds a pointer to a resource to the answer.
func (c *call) link(uri, name, about string) {
	c.links = append(c.links, &mcp.ResourceLink{URI: uri, Name: name, Description: about})
}

// wantsProgress reports whether the client asked to be told how far a call is.
func (c *call) wantsProgress() bool { return c.req.Params.GetProgressToken() != nil }

// progress tells what the call is at; how far is the seconds that it has taken, since nothing knows how many it will take. Too many
// notes in too short a time are left out.
func (c *call) progress(ctx context.Context, message string) {
	if !c.wantsProgress() {
		return
	}
	c.mu.Lock()
	now := time.Now()
	if now.Sub(c.last) < progressEvery {
		c.mu.Unlock()
		return
	}
	c.last = now
	c.mu.Unlock()
	// A client that does not get the note has left, which ctx tells.
	_ = c.req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
		ProgressToken: c.req.Params.GetProgressToken(), Progress: now.Sub(c.start).Seconds(), Message: fault.Plain(message),
	})
}

// meanwhile does something slow, telling from time to time that it goes on, and what step, if it can be told, it is at.
func meanwhile[T any](ctx context.Context, c *call, what string, step func(context.Context) string, do func() (T, error)) (T, error) {
	if !c.wantsProgress() {
		return do()
	}
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		c.progress(ctx, what)
		for {
			select {
			case <-over:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			message := what
			if step != nil {
				if text := step(ctx); text != "" {
					message += ": " + text
				}
			}
			c.progress(ctx, message)
		}
	})
	defer wg.Wait()
	defer close(over)
	return do()
}

// log tells the client, and whoever reads our own log, how a call went. Parameters and results are in neither.
func (c *call) log(ctx context.Context, err error, name string, took time.Duration) {
	level, note := slog.LevelInfo, "info"
	data := map[string]any{"msg": "called", "tool": name, "ms": took.Milliseconds()}
	attrs := []any{"tool", name, "ms", took.Milliseconds()}
	if err != nil {
		level, note = slog.LevelWarn, "warning"
		if ctx.Err() != nil {
			err = errors.New("cancelled")
		}
		data["msg"], data["error"] = "failed", fault.Line(err)
		attrs = append(attrs, "error", err)
	}
	c.s.opts.Log.Log(ctx, level, "call", attrs...)
	// A client that does not get the note has left.
	//nolint:staticcheck // deprecated by the latest revision, and what clients of all others show
	_ = c.req.Session.Log(ctx, &mcp.LoggingMessageParams{Level: mcp.LoggingLevel(note), Logger: "capsem", Data: data})
}

// failure is a tool's error as a model reads it: what is wrong, and what to do next.
type failure struct{ err error }

// Error implements error.
func (f *failure) Error() string { return fault.Text(f.err) }

// Unwrap returns the error itself.
func (f *failure) Unwrap() error { return f.err }

// codes adds to failed calls the code of their error, for programs.
func codes(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
		result, err := next(ctx, method, req)
		if res, ok := result.(*mcp.CallToolResult); ok && res != nil && res.IsError {
			code := fault.Invalid // the SDK's own words: the parameters do not fit
			if f, ok := errors.AsType[*failure](res.GetError()); ok {
				code, _, _ = fault.Public(f.err)
			}
			res.Meta = mcp.Meta{"capsem/code": string(code)}
		}
		return result, err //nolint:wrapcheck // passed on
	}
}
