package localapi

import (
	"net/http"

	"capsem/core/api"
	"capsem/core/mcp"
)

func (s *Server) mcpRoutes() []route {
	return []route{
		{method: "GET", path: "/mcp/servers", summary: "The MCP servers that VMs may use", out: api.MCPServersReply{}, run: s.mcpServers},
		{method: "POST", path: "/mcp/servers", summary: "Add one to the user's settings", in: api.MCPAddRequest{}, out: api.Success{}, run: s.mcpAdd},
		{method: "DELETE", path: "/mcp/servers/{name}", summary: "Take one out of the user's settings", out: api.Success{}, run: s.mcpRemove},
		{method: "PUT", path: "/mcp/servers/{name}/login", summary: "Store what a sign-in to one has got", in: api.MCPLoginRequest{}, out: api.Success{}, run: s.mcpLogin},
		{method: "DELETE", path: "/mcp/servers/{name}/login", summary: "Forget it", out: api.Success{}, run: s.mcpLogout},
		{
			method: "GET", path: "/mcp/tools", summary: "The tools of MCP servers", out: api.MCPToolsReply{}, run: s.mcpTools,
			query: []param{{"server", "string", "only those of this one", false}},
		},
		{method: "POST", path: "/mcp/tools/refresh", summary: "Ask servers again what they offer", in: api.MCPRefreshRequest{}, out: api.MCPServersReply{}, run: s.mcpRefresh},
		{
			method: "POST", path: "/mcp/tools/{name}/approve", summary: "Approve a tool as it is, or all of a server", in: api.MCPApproveRequest{},
			out: api.MCPApproveReply{}, run: s.mcpApprove,
		},
		{
			method: "POST", path: "/mcp/tools/{name}/call", summary: "Call a tool in the name of a VM, under its policy", in: api.MCPCallRequest{},
			out: map[string]any{}, run: s.mcpCall,
		},
	}
}

func (s *Server) mcpServers(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.MCPServers(r.Context())
	return answer(w, reply, err)
}

func (s *Server) mcpAdd(w http.ResponseWriter, r *http.Request) error {
	var req api.MCPAddRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	return answer(w, api.Success{Success: true}, s.svc.MCPAdd(&req))
}

func (s *Server) mcpRemove(w http.ResponseWriter, r *http.Request) error {
	return answer(w, api.Success{Success: true}, s.svc.MCPRemove(r.PathValue("name")))
}

func (s *Server) mcpTools(w http.ResponseWriter, r *http.Request) error {
	reply, err := s.svc.MCPTools(r.Context(), r.URL.Query().Get("server"))
	return answer(w, reply, err)
}

func (s *Server) mcpRefresh(w http.ResponseWriter, r *http.Request) error {
	var req api.MCPRefreshRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	reply, err := s.svc.MCPRefresh(r.Context(), req.Server)
	return answer(w, reply, err)
}

func (s *Server) mcpApprove(w http.ResponseWriter, r *http.Request) error {
	var req api.MCPApproveRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	reply, err := s.svc.MCPApprove(r.PathValue("name"), req.Pin)
	return answer(w, reply, err)
}

func (s *Server) mcpCall(w http.ResponseWriter, r *http.Request) error {
	var req api.MCPCallRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	body, err := s.svc.MCPCall(r.Context(), r.PathValue("name"), req)
	return answer(w, body, err)
}

func (s *Server) mcpLogin(w http.ResponseWriter, r *http.Request) error {
	var req api.MCPLoginRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	return answer(w, api.Success{Success: true}, s.svc.MCPLogin(r.Context(), r.PathValue("name"), &req))
}

func (s *Server) mcpLogout(w http.ResponseWriter, r *http.Request) error {
	return answer(w, api.Success{Success: true}, s.svc.RemoveSecret(r.Context(), mcp.LoginSecret(r.PathValue("name"))))
}
