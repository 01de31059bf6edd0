package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/approval"
	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
	"capsem/core/mcp/peer"
	"capsem/core/policy"
	"capsem/core/proto"
)

// request is one request of a session to a server.
type request struct {
	session *sdk.ServerSession
	server  string
	// tool is what the policy knows it by: a tool's name, "resource:URI" or "prompt:NAME".
	tool   string
	method string
	args   json.RawMessage
	params any
	// token is the client's, for progress; nil for none.
	token any
}

// do judges a request, makes it, and records both.
func (g *Gateway) do(ctx context.Context, r *request, result any) error {
	params, err := json.Marshal(r.params)
	if err != nil {
		return errInternal()
	}
	g.mu.Lock()
	process := g.sessions[r.session]
	g.mu.Unlock()
	if process == nil {
		process = &proto.ProcessClaim{}
	}
	call := Call{Time: time.Now(), Server: r.server, Method: r.method, Tool: r.tool, Request: r.args, Process: *process, Sent: int64(len(params)), Decision: "allowed"}
	body, err := g.judged(ctx, r, params, &call)
	call.Response, call.Received = body, int64(len(body))
	if err == nil {
		if err = json.Unmarshal(body, result); err != nil {
			err = peer.Errorf(peer.CodeFailed, "the answer of MCP server %s is none", r.server)
		}
	}
	g.record(&call, err)
	return forClient(err)
}

// record records how a call ended.
func (g *Gateway) record(call *Call, err error) {
	call.Duration = time.Since(call.Time)
	if err != nil {
		if call.Error = err.Error(); call.Decision == "allowed" {
			call.Decision = "error"
		}
	}
	g.cfg.Record(*call)
}

// allows asks the policy, and whom that asks. What the owner has configured, and approved, is allowed where no rule says otherwise.
func (g *Gateway) allows(ctx context.Context, r *request, call *Call) error {
	v := g.cfg.Judge.Judge(approval.WithProcess(ctx, &call.Process), &policy.Request{
		VM: g.cfg.VM, MCPServer: r.server, MCPTool: r.tool, MCPArgs: r.args, Process: call.Process.Name, Exe: call.Process.Exe,
	})
	if call.Rule, call.AskID = v.RuleID, v.AskID; v.Effect != policy.Allow && v.RuleID != policy.RuleDefault {
		call.Decision = "denied"
		return refused(r, &v)
	}
	return nil
}

// judged makes the request if the policy allows it. The answer may come with an error, that it is not to be shown.
func (g *Gateway) judged(ctx context.Context, r *request, params []byte, call *Call) ([]byte, error) {
	select {
	case g.calls <- struct{}{}:
		defer func() { <-g.calls }()
	default:
		return nil, peer.Errorf(peer.CodeBusy, "this VM makes too many calls at once")
	}
	if err := g.allows(ctx, r, call); err != nil {
		return nil, err
	}
	if err := g.inspect(ctx, r, call, false, params); err != nil {
		return nil, err
	}
	token, done := g.begin(r)
	defer done()
	g.mu.Lock()
	backend := g.backend
	g.mu.Unlock()
	if backend == nil {
		return nil, peer.Errorf(peer.CodeFailed, "this VM has no MCP servers")
	}
	body, err := backend.Request(ctx, &aggregator.Call{Server: r.server, Method: r.method, Params: params, Token: token})
	if err != nil {
		return nil, g.complaint(ctx, r, call, err)
	}
	if held := g.held.Add(int64(len(body))); held > maxHeld {
		g.held.Add(-int64(len(body)))
		return nil, peer.Errorf(peer.CodeTooLarge, "answers are not read as fast as they come")
	}
	defer g.held.Add(-int64(len(body)))
	if err := g.inspect(ctx, r, call, true, body); err != nil {
		return body, err // for the record
	}
	return body, nil
}

// begin notes that a request runs, and where its progress goes.
func (g *Gateway) begin(r *request) (token uint64, done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	of := g.running[r.server]
	if of == nil {
		of = map[*sdk.ServerSession]int{}
		g.running[r.server] = of
	}
	of[r.session]++
	if r.token != nil {
		g.next++
		token = g.next
		g.tokens[token] = progressTo{session: r.session, token: r.token}
	}
	return token, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.tokens, token)
		if of[r.session]--; of[r.session] <= 0 {
			delete(of, r.session)
		}
	}
}

// refused is the answer to a call that the policy does not allow, in words that an agent can act on.
func refused(r *request, v *policy.Verdict) error {
	why := ""
	if v.Reason != "" {
		why = ": " + v.Reason
	}
	return peer.Errorf(peer.CodeRefused, "refused by the owner's policy, rule %s%s. Do not try it in another way; ask the owner of this VM if it is needed (%s of MCP server %s)",
		v.RuleID, why, r.tool, r.server)
}

// forClient makes an error one of JSON-RPC.
func forClient(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*peer.Error](err); ok {
		return &jsonrpc.Error{Code: e.Code, Message: e.Message}
	}
	if errors.Is(err, context.Canceled) {
		return &jsonrpc.Error{Code: peer.CodeFailed, Message: "cancelled"}
	}
	return &jsonrpc.Error{Code: jsonrpc.CodeInternalError, Message: err.Error()}
}

func (g *Gateway) callTool(ctx context.Context, s *sdk.ServerSession, p *sdk.CallToolParamsRaw) (sdk.Result, error) {
	call := Call{Time: time.Now(), Method: "tools/call", Request: p.Arguments, Process: g.processOf(s), Decision: "error"}
	e, ok := g.now().tools.Find(p.Name)
	if !ok {
		call.Tool = fmt.Sprintf("%.140q", p.Name)
		err := errUnknown("tool: " + call.Tool)
		g.record(&call, err)
		return nil, err
	}
	call.Server, call.Tool = e.Server, e.Name
	if e.State != mcp.Listed {
		call.Decision, call.Rule, call.Error = "denied", "pin", e.Why
		g.record(&call, nil)
		hint := "its owner has to approve it (capsem mcp approve " + e.Full + ")"
		if e.State == mcp.Refused {
			hint = "it cannot be used"
		}
		return nil, &jsonrpc.Error{Code: peer.CodeRefused, Message: fmt.Sprintf("tool %s is held back: %s; %s", e.Full, e.Why, hint)}
	}
	args, err := arguments(e, p.Arguments)
	if err != nil {
		g.record(&call, err)
		return nil, err
	}
	var out sdk.CallToolResult
	err = g.do(ctx, &request{
		session: s, server: e.Server, tool: e.Name, method: "tools/call", args: args, token: p.GetProgressToken(),
		params: &sdk.CallToolParamsRaw{Name: e.Name, Arguments: args},
	}, &out)
	if err != nil {
		return nil, err
	}
	out.Meta = nil
	if out.Content == nil {
		out.Content = []sdk.Content{}
	}
	rename(out.Content, e.Server)
	return &out, nil
}

// rename puts the server's name into the URIs of what it points to.
func rename(content []sdk.Content, server string) {
	for _, c := range content {
		switch c := c.(type) {
		case *sdk.ResourceLink:
			c.URI, c.Icons = mcp.JoinURI(server, c.URI), nil
		case *sdk.EmbeddedResource:
			if c.Resource != nil {
				c.Resource.URI = mcp.JoinURI(server, c.Resource.URI)
			}
		}
	}
}

// arguments are those of a call, each key once: else the policy could look at another value than the server.
func arguments(e *mcp.Entry, raw json.RawMessage) (json.RawMessage, error) {
	args, err := mcp.Canonical(raw)
	if err != nil || len(args) > 0 && args[0] != '{' {
		return nil, &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: "the arguments are no object"}
	}
	if name, meant, ok := mcp.Misspelt(args, e.Tool.InputSchema); ok {
		return nil, &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: fmt.Sprintf("there is no argument %.100q; is %.100q meant?", name, meant)}
	}
	return args, nil
}

func (g *Gateway) processOf(s *sdk.ServerSession) proto.ProcessClaim {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.sessions[s]; p != nil {
		return *p
	}
	return proto.ProcessClaim{}
}

// owner finds the server of a resource, which must be there.
func (g *Gateway) owner(full string) (server, uri string, err error) {
	server, uri, ok := mcp.SplitURI(full)
	if !ok || g.now().servers[server] == nil || !validURI(uri) {
		return "", "", errUnknown(fmt.Sprintf("resource: %.200q", full))
	}
	return server, uri, nil
}

func (g *Gateway) readResource(ctx context.Context, s *sdk.ServerSession, p *sdk.ReadResourceParams) (sdk.Result, error) {
	server, uri, err := g.owner(p.URI)
	if err != nil {
		return nil, err
	}
	var out sdk.ReadResourceResult
	err = g.do(ctx, &request{
		session: s, server: server, tool: "resource:" + uri, method: "resources/read", token: p.GetProgressToken(), params: &sdk.ReadResourceParams{URI: uri},
	}, &out)
	if err != nil {
		return nil, err
	}
	out.Meta = nil
	for _, c := range out.Contents {
		if c != nil {
			c.URI, c.Meta = mcp.JoinURI(server, c.URI), nil
		}
	}
	return &out, nil
}

// prompt finds the server of a prompt.
func (g *Gateway) prompt(full string) (server, name string, err error) {
	server, name, ok := mcp.Split(full)
	if !ok || !g.now().hasPrompt(full) {
		return "", "", errUnknown(fmt.Sprintf("prompt: %.140q", full))
	}
	return server, name, nil
}

func (g *Gateway) getPrompt(ctx context.Context, s *sdk.ServerSession, p *sdk.GetPromptParams) (sdk.Result, error) {
	server, name, err := g.prompt(p.Name)
	if err != nil {
		return nil, err
	}
	args, err := json.Marshal(p.Arguments)
	if err != nil {
		return nil, errInternal()
	}
	var out sdk.GetPromptResult
	err = g.do(ctx, &request{
		session: s, server: server, tool: "prompt:" + name, method: "prompts/get", args: args, token: p.GetProgressToken(),
		params: &sdk.GetPromptParams{Name: name, Arguments: p.Arguments},
	}, &out)
	if err != nil {
		return nil, err
	}
	out.Meta = nil
	return &out, nil
}

func (g *Gateway) complete(ctx context.Context, s *sdk.ServerSession, p *sdk.CompleteParams) (sdk.Result, error) {
	if p.Ref == nil {
		return nil, errUnknown("reference")
	}
	ref, tool := *p.Ref, ""
	var server string
	var err error
	switch ref.Type {
	case "ref/prompt":
		server, ref.Name, err = g.prompt(ref.Name)
		tool = "prompt:" + ref.Name
	case "ref/resource":
		var ok bool
		if server, ref.URI, ok = mcp.SplitURI(ref.URI); !ok || g.now().servers[server] == nil {
			err = errUnknown("resource")
		}
		tool = "resource:" + ref.URI
	default:
		err = errUnknown("reference")
	}
	if err != nil {
		return nil, err
	}
	var out sdk.CompleteResult
	err = g.do(ctx, &request{
		session: s, server: server, tool: tool, method: "completion/complete", params: &sdk.CompleteParams{Ref: &ref, Argument: p.Argument, Context: p.Context},
	}, &out)
	if err != nil {
		return nil, err
	}
	out.Meta = nil
	return &out, nil
}
