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
// of the secrets that servers would get, and for which of them there is no next one. A third has a server refuse the token that it is named.
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
			part := fmt.Sprintf("%s %d", name, len(w.servers[name]))
			if w.unrenewed[name] == mcp.Mark(string(w.servers[name])) {
				part += " and no next"
			}
			parts = append(parts, part)
		}
		w.mu.Unlock()
		text = strings.Join(parts, ", ")
	}
	if req.MCP.Tool == "local__refuse" {
		var name string
		if json.Unmarshal(req.MCP.Args, &name) == nil {
			w.refuse(name)
		}
	}
	_ = json.NewEncoder(conn).Encode(map[string]any{"content": []map[string]string{{"type": "text", "text": text}}})
}

// refuse has a server refuse the token that there is.
func (w *worker) refuse(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := proto.RefusedToken{Name: name, Mark: mcp.Mark(string(w.servers[name])), Number: 1}
	for _, old := range w.status.Refused {
		one.Number += old.Number
	}
	w.status.Refused = []proto.RefusedToken{one}
	close(w.changed)
	w.changed = make(chan struct{})
}
