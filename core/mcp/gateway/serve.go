package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp/lines"
	"capsem/core/proto"
)

// Serve serves one session until its stream, or ctx, ends.
func (g *Gateway) Serve(ctx context.Context, st Stream, process *proto.ProcessClaim) {
	stop := context.AfterFunc(ctx, func() { _ = st.Close() })
	defer stop()
	if !g.enter() {
		refuse(st, "this VM has too many MCP sessions")
		return
	}
	defer g.leave()
	transport := &lines.Transport{
		In: st, Out: st, MaxLine: lines.MaxLine, MaxDepth: lines.MaxDepth, Serve: true, SetWriteDeadline: st.SetWriteDeadline, WriteTime: writeTime,
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	session, err := g.server.Connect(ctx, transport, nil)
	if err != nil {
		g.cfg.Log.Debug("an MCP session of the guest", "error", err)
		return
	}
	g.mu.Lock()
	g.sessions[session] = process
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.sessions, session)
		g.subscribed.leave(session)
	}()
	if err := session.Wait(); err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
		g.cfg.Log.Debug("an MCP session of the guest ended", "error", err)
	}
}

func (g *Gateway) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.count >= maxSessions {
		return false
	}
	g.count++
	return true
}

func (g *Gateway) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count--
}

// refuseTime bounds the answer to a session too many.
const refuseTime = 5 * time.Second

// refuse answers the first request of a session with an error.
func refuse(st Stream, why string) {
	timer := time.AfterFunc(refuseTime, func() { _ = st.Close() })
	defer timer.Stop()
	var id any
	if line, err := bufio.NewReaderSize(io.LimitReader(st, lines.MaxLine), 4<<10).ReadBytes('\n'); err == nil {
		if msg, _, err := lines.Decode(line, lines.MaxDepth); err == nil {
			if r, ok := msg.(*jsonrpc.Request); ok {
				id = r.ID.Raw()
			}
		}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": id, "error": map[string]any{"code": lines.CodeBusy, "message": why}})
	if err == nil {
		_, _ = st.Write(append(body, '\n')) // it may have left
	}
}

// receive answers requests instead of the SDK's own lists.
func (g *Gateway) receive(next sdk.MethodHandler) sdk.MethodHandler {
	return func(ctx context.Context, method string, req sdk.Request) (result sdk.Result, err error) {
		defer func() {
			if r := recover(); r != nil { // a bug must cost one request, not the VM
				g.cfg.Log.Error("an MCP request failed badly", "method", method, "panic", fmt.Sprint(r))
				result, err = nil, errInternal()
			}
		}()
		if strings.Contains(method, "/") && !strings.HasPrefix(method, "notifications/") {
			g.wait(ctx)
		}
		switch p := req.GetParams().(type) {
		case *sdk.ListToolsParams:
			v := g.now()
			tools, cursor := page(v.listed, func(t *sdk.Tool) string { return t.Name }, cursorOf(p != nil, func() string { return p.Cursor }))
			return &sdk.ListToolsResult{Tools: tools, NextCursor: cursor}, nil
		case *sdk.ListResourcesParams:
			v := g.now()
			list, cursor := page(v.resources, func(r *sdk.Resource) string { return r.URI }, cursorOf(p != nil, func() string { return p.Cursor }))
			return &sdk.ListResourcesResult{Resources: list, NextCursor: cursor}, nil
		case *sdk.ListResourceTemplatesParams:
			v := g.now()
			list, cursor := page(v.templates, func(r *sdk.ResourceTemplate) string { return r.URITemplate }, cursorOf(p != nil, func() string { return p.Cursor }))
			return &sdk.ListResourceTemplatesResult{ResourceTemplates: list, NextCursor: cursor}, nil
		case *sdk.ListPromptsParams:
			v := g.now()
			list, cursor := page(v.prompts, func(r *sdk.Prompt) string { return r.Name }, cursorOf(p != nil, func() string { return p.Cursor }))
			return &sdk.ListPromptsResult{Prompts: list, NextCursor: cursor}, nil
		case *sdk.CallToolParamsRaw:
			return g.callTool(ctx, session(req), p)
		case *sdk.ReadResourceParams:
			return g.readResource(ctx, session(req), p)
		case *sdk.GetPromptParams:
			return g.getPrompt(ctx, session(req), p)
		case *sdk.CompleteParams:
			return g.complete(ctx, session(req), p)
		case *sdk.SubscribeParams:
			if err := g.subscribe(ctx, session(req), p.URI); err != nil {
				return nil, err
			}
		case *sdk.UnsubscribeParams:
			if err := g.unsubscribe(ctx, session(req), p.URI); err != nil {
				return nil, err
			}
		}
		return next(ctx, method, req)
	}
}

func session(req sdk.Request) *sdk.ServerSession {
	s, _ := req.GetSession().(*sdk.ServerSession)
	return s
}

// cursorOf is the cursor of parameters that may be absent.
func cursorOf(there bool, cursor func() string) string {
	if !there {
		return ""
	}
	return cursor()
}

func errInternal() error {
	return &jsonrpc.Error{Code: jsonrpc.CodeInternalError, Message: "capsem failed to answer that"}
}

func errUnknown(what string) error {
	return &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: "there is no such " + what}
}
