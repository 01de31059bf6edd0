package aggregator

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp/peer"
)

// request makes one request of the server, within its limits. It is made once.
func (s *session) request(ctx context.Context, call *Call) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.server.Limits.Timeout)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			return nil, peer.Errorf(peer.CodeBusy, "MCP server %s is busy: %d calls run at once", s.server.Name, s.server.Limits.Concurrency)
		}
	}
	c, err := s.connected(ctx)
	if err != nil {
		return nil, err
	}
	result, err := s.dispatch(ctx, c, call)
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	body, err := json.Marshal(result)
	if err != nil {
		return nil, peer.Errorf(peer.CodeFailed, "the answer of MCP server %s cannot be encoded", s.server.Name)
	}
	if len(body) > s.server.Limits.MaxResult {
		return nil, peer.Errorf(peer.CodeTooLarge, "the answer of MCP server %s has %d bytes; it may have %d", s.server.Name, len(body), s.server.Limits.MaxResult)
	}
	return body, nil
}

// explain makes an error of the server one for the caller.
func (s *session) explain(ctx context.Context, err error) error {
	name := s.server.Name
	// Ours first: the SDK joins an error of its own to those of a transport.
	if e, ok := errors.AsType[*peer.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*jsonrpc.Error](err); ok {
		return peer.Errorf(e.Code, "%s", clip(e.Message, 8<<10))
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return peer.Errorf(peer.CodeTimeout, "MCP server %s has not answered within %s", name, s.server.Limits.Timeout)
	case ctx.Err() != nil:
		return peer.Errorf(peer.CodeFailed, "cancelled")
	}
	s.log.Debug("a request was lost", "error", err)
	return peer.Errorf(peer.CodeLost, "MCP server %s ended before it answered: whether the call was carried out is not known, and it is not repeated", name)
}

// dispatch makes the request with the SDK's own types.
func (s *session) dispatch(ctx context.Context, c *sdk.ClientSession, call *Call) (any, error) {
	switch call.Method {
	case "tools/call":
		var p sdk.CallToolParamsRaw
		if err := decode(call, &p); err != nil {
			return nil, err
		}
		return c.CallTool(ctx, &sdk.CallToolParams{Meta: meta(call), Name: p.Name, Arguments: p.Arguments})
	case "resources/read":
		var p sdk.ReadResourceParams
		if err := decode(call, &p); err != nil {
			return nil, err
		}
		return c.ReadResource(ctx, &sdk.ReadResourceParams{Meta: meta(call), URI: p.URI})
	case "resources/subscribe":
		var p sdk.SubscribeParams
		if err := decode(call, &p); err != nil {
			return nil, err
		}
		return struct{}{}, c.Subscribe(ctx, &sdk.SubscribeParams{URI: p.URI})
	case "resources/unsubscribe":
		var p sdk.UnsubscribeParams
		if err := decode(call, &p); err != nil {
			return nil, err
		}
		return struct{}{}, c.Unsubscribe(ctx, &sdk.UnsubscribeParams{URI: p.URI})
	case "prompts/get":
		var p sdk.GetPromptParams
		if err := decode(call, &p); err != nil {
			return nil, err
		}
		return c.GetPrompt(ctx, &sdk.GetPromptParams{Meta: meta(call), Name: p.Name, Arguments: p.Arguments})
	case "completion/complete":
		var p sdk.CompleteParams
		if err := decode(call, &p); err != nil {
			return nil, err
		}
		return c.Complete(ctx, &sdk.CompleteParams{Ref: p.Ref, Argument: p.Argument, Context: p.Context})
	}
	return nil, peer.Errorf(jsonrpc.CodeMethodNotFound, "%.60q is not handed on to servers", call.Method)
}

func decode(call *Call, p any) error {
	if err := json.Unmarshal(call.Params, p); err != nil {
		return peer.Errorf(jsonrpc.CodeInvalidParams, "the parameters of %s are none", call.Method)
	}
	return nil
}

// meta asks for progress where the caller wants it. Nothing else of the caller's metadata goes to a server.
func meta(call *Call) sdk.Meta {
	if call.Token == 0 {
		return nil
	}
	return sdk.Meta{"progressToken": call.Token}
}
