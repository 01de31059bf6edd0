package gateway

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/fault"
	"capsem/core/mcp"
	"capsem/core/mcp/peer"
)

// OutsideCall calls a tool for somebody on the host, the owner or the owner's agent, under the same rules as for the VM's: approved tools
// only, and as the policy says.
func (g *Gateway) OutsideCall(ctx context.Context, full string, args []byte) ([]byte, error) {
	g.wait(ctx)
	e, ok := g.now().tools.Find(full)
	if !ok {
		return nil, fault.New(fault.NotFound, "there is no tool %.140q in this VM", full).WithHint("capsem mcp tools lists what there is")
	}
	if e.State != mcp.Listed {
		return nil, fault.New(fault.Forbidden, "tool %s is held back: %s", e.Full, e.Why).WithHint("capsem mcp approve %s, if you trust it as it is", e.Full)
	}
	canonical, err := arguments(e, args)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s", err)
	}
	var body json.RawMessage
	err = g.do(ctx, &request{
		server: e.Server, tool: e.Name, method: "tools/call", args: canonical, params: &sdk.CallToolParamsRaw{Name: e.Name, Arguments: canonical},
	}, &body)
	if e, ok := errors.AsType[*jsonrpc.Error](err); ok {
		return nil, fault.New(codeOf(e.Code), "%s", e.Message)
	}
	return body, err
}

// codeOf is the fault of a failed call.
func codeOf(code int64) fault.Code {
	switch code {
	case peer.CodeTimeout:
		return fault.Timeout
	case peer.CodeRefused:
		return fault.Forbidden
	case peer.CodeBusy:
		return fault.LimitReached
	case peer.CodeTooLarge:
		return fault.TooLarge
	case jsonrpc.CodeInvalidParams:
		return fault.Invalid
	}
	return fault.Unavailable
}
