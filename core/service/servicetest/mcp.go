package servicetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"capsem/core/mcp"
	"capsem/core/proto"
)

// mcp answers about MCP servers: there is the built-in one, with a tool that echoes its arguments, and one that tells the names and lengths
// of the secrets that servers would get.
func (w *worker) mcp(conn net.Conn, req proto.WorkerRequest) {
	if req.MCP.Op != proto.MCPCall {
		_ = json.NewEncoder(conn).Encode(mcp.VMReport{
			Servers: []mcp.ServerState{{Name: mcp.Local, Up: true, Tools: 2}},
			Tools: []mcp.ToolState{
				{Name: "local__echo", Server: mcp.Local, State: mcp.Listed, Description: "echoes"}, {Name: "local__secrets", Server: mcp.Local, State: mcp.Listed},
			},
		})
		return
	}
	text := string(req.MCP.Args)
	if req.MCP.Tool == "local__secrets" {
		var parts []string
		w.mu.Lock()
		for _, name := range slices.Sorted(maps.Keys(w.servers)) {
			parts = append(parts, fmt.Sprintf("%s %d", name, len(w.servers[name])))
		}
		w.mu.Unlock()
		text = strings.Join(parts, ", ")
	}
	_ = json.NewEncoder(conn).Encode(map[string]any{"content": []map[string]string{{"type": "text", "text": text}}})
}
