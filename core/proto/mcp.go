package proto

import (
	"errors"
	"fmt"
)

// MCPOpen opens a stream on PortMCP: one CBOR frame after the stream header, then MCP as on standard input and output, a JSON-RPC
// message a line, both ways.
type MCPOpen struct {
	// Process is who wants it.
	Process ProcessClaim `cbor:"process"`
}

// Validate bounds every field.
func (m *MCPOpen) Validate() error { return m.Process.Validate() }

// MCPOp is what an MCPRequest asks for.
type MCPOp string

// The operations.
const (
	// MCPStatus tells of the servers and their tools. MCPRefresh asks one (Server), or all, again what it offers. MCPCall calls a tool.
	MCPStatus  MCPOp = "status"
	MCPRefresh MCPOp = "refresh"
	MCPCall    MCPOp = "call"
)

// maxMCPArgs bounds the arguments of a call.
const maxMCPArgs = 128 << 10

// MCPRequest is the owner's request about the MCP servers of a VM. It is answered with JSON, to the end of the connection.
type MCPRequest struct {
	Op     MCPOp  `cbor:"op"`
	Server string `cbor:"server,omitempty"`
	// Tool is a full name, such as server__tool; Args a JSON object.
	Tool string `cbor:"tool,omitempty"`
	Args []byte `cbor:"args,omitempty"`
}

// Validate bounds every field.
func (r *MCPRequest) Validate() error {
	switch {
	case r.Op != MCPStatus && r.Op != MCPRefresh && r.Op != MCPCall:
		return fmt.Errorf("unknown MCP operation %.20q", r.Op)
	case len(r.Server) > 64 || len(r.Tool) > 256 || !isText(r.Server) || !isText(r.Tool):
		return errors.New("mcp: a name is too long, or no text")
	case (r.Op == MCPCall) != (r.Tool != ""):
		return errors.New("mcp: a tool is what a call needs, and nothing else")
	case len(r.Args) > maxMCPArgs:
		return errors.New("mcp: the arguments are too long")
	}
	return nil
}
