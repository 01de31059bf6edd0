package service

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"capsem/core/api"
	"capsem/core/config"
	"capsem/core/fault"
	"capsem/core/mcp"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

const (
	// maxMCPAnswer bounds what a worker answers about MCP, mcpStatusTime how long it may take to say how its servers are.
	maxMCPAnswer  = 32 << 20
	mcpStatusTime = 3 * time.Second
)

// mcpVM is a VM whose worker runs.
type mcpVM struct{ id, socket string }

func (s *Service) mcpVMs() (out []mcpVM) {
	for _, v := range s.all() {
		if w := v.view(); w.life != nil && !w.spec.Pooled {
			out = append(out, mcpVM{w.spec.ID, s.opts.Home.InstanceSocket(v.instance(w.life))})
		}
	}
	return out
}

// askMCP asks a worker about MCP, and gives its JSON.
func (s *Service) askMCP(ctx context.Context, vm mcpVM, req *proto.MCPRequest) (body []byte, err error) {
	conn, err := workerclient.Dial(ctx, vm.socket)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	stream, err := conn.Stream(ctx, proto.WorkerRequest{Op: proto.OpMCP, MCP: req})
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	defer stream.Close()
	body, err = io.ReadAll(io.LimitReader(stream, maxMCPAnswer+1))
	if err == nil && len(body) > maxMCPAnswer {
		err = fault.New(fault.TooLarge, "the answer of VM %s is too large", vm.id)
	}
	if err == nil && !json.Valid(body) {
		err = fault.New(fault.Unavailable, "the answer of VM %s broke off", vm.id)
	}
	return body, err //nolint:wrapcheck // the stream says what it is
}

// mcpReports are the MCP servers of all VMs that answer.
func (s *Service) mcpReports(ctx context.Context, req *proto.MCPRequest) map[string]mcp.VMReport {
	ctx, cancel := context.WithTimeout(ctx, mcpStatusTime)
	defer cancel()
	out := map[string]mcp.VMReport{}
	for _, vm := range s.mcpVMs() {
		body, err := s.askMCP(ctx, vm, req)
		var r mcp.VMReport
		if err == nil {
			err = json.Unmarshal(body, &r)
		}
		if err != nil {
			s.log.Debug("a VM does not tell of its MCP servers", "vm", vm.id, "error", err)
			continue
		}
		out[vm.id] = r
	}
	return out
}

// pins are the tools that were seen.
func (s *Service) pins() (*mcp.Pins, error) {
	p := mcp.OpenPins(s.opts.Home.MCPPins())
	_, err := p.Refresh()
	return p, err //nolint:wrapcheck // says what it did
}

// MCPServers lists the servers there are, and how they are in the VMs that use them.
func (s *Service) MCPServers(ctx context.Context) (api.MCPServersReply, error) {
	set, err := config.Load(s.opts.Home)
	if err != nil {
		return api.MCPServersReply{}, err //nolint:wrapcheck // a fault
	}
	pins, err := s.pins()
	if err != nil {
		return api.MCPServersReply{}, err
	}
	all := []api.MCPServer{{Name: mcp.Local, Source: "builtin", Transport: "stdio", State: "configured"}}
	for _, d := range set.MCPServers() {
		one := api.MCPServer{Name: d.Name, Source: "user", Transport: "http", Target: d.URL, State: "configured"}
		if d.SSE {
			one.Transport = "sse"
		}
		if d.Command != "" {
			one.Transport, one.Target = "stdio", strings.Join(append([]string{d.Command}, d.Args...), " ")
		}
		all = append(all, one)
	}
	known := pins.All()
	reports := s.mcpReports(ctx, &proto.MCPRequest{Op: proto.MCPStatus})
	for i := range all {
		one := &all[i]
		for _, p := range known {
			if p.Server == one.Name {
				one.Tools++
				if p.Waits() {
					one.Held++
				}
			}
		}
		for _, vm := range slices.Sorted(maps.Keys(reports)) {
			seenIn(one, vm, reports[vm])
		}
	}
	return api.MCPServersReply{Servers: all}, nil
}

// seenIn notes how a server is in a VM.
func seenIn(one *api.MCPServer, vm string, r mcp.VMReport) {
	for _, st := range r.Servers {
		if st.Name != one.Name {
			continue
		}
		one.Tools = max(one.Tools, st.Tools)
		switch {
		case st.Up:
			one.State, one.VMs = "connected", append(one.VMs, vm)
		case one.State != "connected":
			one.State, one.Error = "failed", st.Error
		}
	}
}

// MCPTools lists the tools that are known, of one server or of all.
func (s *Service) MCPTools(ctx context.Context, server string) (api.MCPToolsReply, error) {
	pins, err := s.pins()
	if err != nil {
		return api.MCPToolsReply{}, err
	}
	byName := map[string]api.MCPTool{}
	for full, p := range pins.All() {
		t := api.MCPTool{Name: full, Server: p.Server, State: string(mcp.Listed), Approved: !p.Waits(), Pin: p.Seen}
		if p.Waits() {
			t.State, t.Why = string(mcp.Held), "it is new"
			if p.Approved != "" {
				t.Why = "it has changed since it was approved"
			}
		}
		if p.Tool != nil {
			t.Title, t.Description, t.InputSchema, t.OutputSchema, t.Annotations = p.Tool.Title, p.Tool.Description, p.Tool.InputSchema, p.Tool.OutputSchema, p.Tool.Annotations
		}
		if p.Before != nil {
			if t.Before, err = json.Marshal(p.Before); err != nil {
				return api.MCPToolsReply{}, fmt.Errorf("encode tool: %w", err)
			}
		}
		byName[full] = t
	}
	for _, r := range s.mcpReports(ctx, &proto.MCPRequest{Op: proto.MCPStatus}) {
		for _, t := range r.Tools {
			if old, there := byName[t.Name]; there {
				if t.State == mcp.Refused {
					old.State, old.Why = string(t.State), t.Why
					byName[t.Name] = old
				}
				continue
			}
			byName[t.Name] = api.MCPTool{Name: t.Name, Server: t.Server, State: string(t.State), Why: t.Why, Pin: t.Pin, Description: t.Description, Approved: t.State == mcp.Listed}
		}
	}
	out := api.MCPToolsReply{Tools: []api.MCPTool{}}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if t := byName[name]; server == "" || t.Server == server {
			out.Tools = append(out.Tools, t)
		}
	}
	return out, nil
}

// MCPRefresh has servers asked again what they offer, in all VMs, and starts them where they were not yet.
func (s *Service) MCPRefresh(ctx context.Context, server string) (api.MCPServersReply, error) {
	s.mcpReports(ctx, &proto.MCPRequest{Op: proto.MCPRefresh, Server: server})
	return s.MCPServers(ctx)
}

// MCPApprove approves a tool as it is, or all of a server.
func (s *Service) MCPApprove(name, pin string) (api.MCPApproveReply, error) {
	approved, err := mcp.OpenPins(s.opts.Home.MCPPins()).Approve(name, pin)
	if err != nil {
		return api.MCPApproveReply{}, err //nolint:wrapcheck // a fault
	}
	s.log.Info("MCP tools are approved", "tools", approved)
	return api.MCPApproveReply{Approved: approved}, nil
}

// MCPCall calls a tool in the name of a VM, under its policy. The answer is the tool's result.
func (s *Service) MCPCall(ctx context.Context, name string, req api.MCPCallRequest) (json.RawMessage, error) {
	vms := s.mcpVMs()
	if req.VM != "" {
		vms = slices.DeleteFunc(vms, func(v mcpVM) bool { return v.id != req.VM })
	}
	switch {
	case len(vms) == 0 && req.VM != "":
		return nil, fault.New(fault.NotFound, "VM %.80q does not run", req.VM).WithHint("capsem list shows which do")
	case len(vms) == 0:
		return nil, fault.New(fault.Unavailable, "tools are called in the name of a VM, and none runs").WithHint("capsem create")
	case len(vms) > 1:
		return nil, fault.New(fault.Invalid, "several VMs run: say in whose name the tool is to be called")
	}
	return s.askMCP(ctx, vms[0], &proto.MCPRequest{Op: proto.MCPCall, Tool: name, Args: req.Arguments})
}

// MCPAdd adds a server to the user's settings. VMs that run get it within seconds; its tools wait for approval.
func (s *Service) MCPAdd(req *api.MCPAddRequest) error {
	s.registryMu.Lock() // one at a time
	defer s.registryMu.Unlock()
	return config.AddServer(s.opts.Home, &mcp.Definition{ //nolint:wrapcheck // a fault
		Name: req.Name, Command: req.Command, Args: req.Args, Env: req.Env, Read: req.Read, Write: req.Write, Network: req.Network,
		URL: req.URL, SSE: req.SSE, Headers: req.Headers, Private: req.Private,
	})
}

// MCPRemove takes a server out of the user's settings, and forgets what was approved of it.
func (s *Service) MCPRemove(name string) error {
	s.registryMu.Lock() // one at a time
	defer s.registryMu.Unlock()
	if err := config.RemoveServer(s.opts.Home, name); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if err := s.secrets.Remove(mcp.LoginSecret(name)); err != nil && !fault.Is(err, fault.NotFound) {
		s.log.Warn("the sign-in to an MCP server that is gone stays", "server", name, "error", fault.Line(err))
	}
	return mcp.OpenPins(s.opts.Home.MCPPins()).Forget(name) //nolint:wrapcheck // says what it did
}
