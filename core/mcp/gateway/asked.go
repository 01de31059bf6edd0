package gateway

import (
	"context"
	"encoding/json"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp/aggregator"
	"capsem/core/mcp/peer"
)

// Asked hands a server's question to the session whose call it must belong to, the only one that has calls of that server running, and the
// answer back: both are judged, inspected and recorded as calls are.
func (g *Gateway) Asked(ctx context.Context, q *aggregator.Question) ([]byte, error) {
	g.mu.Lock()
	of := g.running[q.Server]
	var s *sdk.ServerSession
	if len(of) == 1 {
		for s = range of {
		}
	}
	g.mu.Unlock()
	if s == nil {
		return nil, peer.Errorf(peer.CodeRefused, "it is not clear whose call this belongs to")
	}
	r := &request{session: s, server: q.Server, tool: q.Method, method: q.Method}
	call := Call{Time: time.Now(), Server: q.Server, Method: q.Method, Process: g.processOf(s), Response: q.Params, Received: int64(len(q.Params)), Decision: "allowed"}
	answer, err := g.ask(ctx, r, q, &call)
	call.Request, call.Sent = answer, int64(len(answer)) // what goes to the server
	g.record(&call, err)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// ask puts the question, if it may be put, and gives the answer. That may come with an error, that it is not to go to the server.
func (g *Gateway) ask(ctx context.Context, r *request, q *aggregator.Question, call *Call) ([]byte, error) {
	if err := g.allows(ctx, r, call); err != nil {
		return nil, err
	}
	if err := g.inspect(ctx, r, call, true, q.Params); err != nil {
		return nil, err
	}
	answer, err := put(ctx, r.session, q)
	if err != nil {
		return nil, err
	}
	return answer, g.inspect(ctx, r, call, false, answer)
}

// put asks a session.
func put(ctx context.Context, s *sdk.ServerSession, q *aggregator.Question) ([]byte, error) {
	var answer any
	var err error
	switch q.Method {
	case "sampling/createMessage":
		var p sdk.CreateMessageParams //nolint:staticcheck // servers and clients of older revisions have it
		if json.Unmarshal(q.Params, &p) != nil {
			return nil, peer.Errorf(jsonrpc.CodeInvalidParams, "the parameters are none")
		}
		p.Meta = nil
		answer, err = s.CreateMessage(ctx, &p) //nolint:staticcheck // servers and clients of older revisions have it
	case "elicitation/create":
		var p sdk.ElicitParams
		if json.Unmarshal(q.Params, &p) != nil {
			return nil, peer.Errorf(jsonrpc.CodeInvalidParams, "the parameters are none")
		}
		p.Meta = nil
		answer, err = s.Elicit(ctx, &p)
	default:
		return nil, peer.Errorf(jsonrpc.CodeMethodNotFound, "that is not handed on")
	}
	if err != nil {
		return nil, peer.Errorf(peer.CodeFailed, "%.500s", err)
	}
	return json.Marshal(answer) //nolint:wrapcheck // of the SDK's own types
}
