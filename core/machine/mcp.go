package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"capsem/core/config"
	"capsem/core/detect"
	"capsem/core/fault"
	"capsem/core/ledger"
	"capsem/core/link"
	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
	"capsem/core/mcp/builtin"
	"capsem/core/mcp/gateway"
	"capsem/core/mcp/host"
	"capsem/core/mcp/peer"
	"capsem/core/proto"
)

const (
	// maxMCPStreams is how many sessions the guest may open at once; the gateway refuses some of them politely, and the link the rest.
	maxMCPStreams = 256
	// maxSnapshotAnswer bounds what a tool for snapshots answers with.
	maxSnapshotAnswer = 8 << 20
	// settingsTime is how often is looked whether the owner has changed the servers.
	settingsTime = 2 * time.Second
)

// mcpServers are the MCP servers of the VM. They are started when somebody first asks for them: most VMs never do.
type mcpServers struct {
	w       *Worker
	gateway *gateway.Gateway
	fetcher builtin.Fetcher
	ctx     context.Context //nolint:containedctx // the VM's own life

	begin sync.Once
	// engine is set when the servers are started.
	engine *detect.Engine
	hosts  atomic.Pointer[map[string]string]
	host   *host.Host
	work   sync.WaitGroup
}

// openMCP makes the gateway, and closes all of it in the end.
func (w *Worker) openMCP(ctx context.Context) (closeAll func()) {
	if w.cfg.MCP == "" || w.network == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m := &mcpServers{w: w, ctx: ctx, fetcher: newFetcher(w.network)}
	m.gateway = gateway.New(gateway.Config{
		VM: w.spec.ID, Judge: w.network, Record: m.record, Inspect: m.inspect, Pins: mcp.OpenPins(w.cfg.Home.MCPPins()), Log: w.log,
	})
	w.mcp = m
	return func() {
		cancel()
		m.work.Wait()
		if m.host != nil {
			m.host.Close()
		}
		if err := os.RemoveAll(w.cfg.Home.MCPWork(w.spec.Session())); err != nil {
			w.log.Warn("the directories of MCP servers cannot be removed", "error", err)
		}
	}
}

// start starts the servers, once.
func (m *mcpServers) start() {
	m.begin.Do(func() {
		dir := m.w.cfg.Home.MCPWork(m.w.spec.Session())
		if err := os.MkdirAll(dir, 0o700); err != nil {
			m.w.log.Error("there are no MCP servers", "error", err)
			return
		}
		session := ""
		if m.w.snapshots != nil {
			session = m.w.dirNow().Dir()
		}
		m.engine = detect.NewEngine(m.w.credentials.ownSecrets)
		m.host = host.Start(m.ctx, host.Config{
			Exe: m.w.cfg.MCP, Dir: dir, Keep: []string{m.w.cfg.Home.Dir()}, Proxy: m.w.spec.Network.Proxy, Secrets: m.w.credentials,
			Builtin: m, SessionDir: session, Listener: m, Log: m.w.log,
		})
		m.gateway.Attach(m.host)
		m.work.Go(func() { m.gateway.Watch(m.ctx) })
		m.work.Go(m.follow)
	})
}

// follow keeps the servers those of the settings.
func (m *mcpServers) follow() {
	source := config.NewServerSource(m.w.cfg.Home)
	tick := time.NewTicker(settingsTime)
	defer tick.Stop()
	for secrets, renewed := m.w.credentials.ofServers(), false; ; {
		if defs, changed := source.Current(m.w.log); changed || renewed {
			names := []string{mcp.Local}
			for i := range defs {
				names = append(names, defs[i].Name)
			}
			m.setHosts(defs)
			m.gateway.Expect(names)
			if err := m.host.Configure(m.ctx, defs); err != nil && m.ctx.Err() == nil {
				m.w.log.Warn("MCP servers cannot be set up", "error", err)
			}
		}
		renewed = false
		select {
		case <-tick.C:
		case <-secrets.replaced:
			secrets, renewed = m.w.credentials.ofServers(), true
		case <-m.ctx.Done():
			return
		}
	}
}

// serveMCP serves one session of the guest.
func (w *Worker) serveMCP(ctx context.Context, st link.Stream) {
	if w.mcp == nil {
		return // no MCP here, or a template that is being made
	}
	_ = st.SetReadDeadline(time.Now().Add(guestRequestTime)) // a stream has deadlines
	var open proto.MCPOpen
	err := proto.ReadFrame(st, proto.MaxFrame, &open)
	if err == nil {
		err = open.Validate()
	}
	if err == nil {
		err = st.SetReadDeadline(time.Time{})
	}
	if err != nil {
		w.log.Debug("an MCP session of the guest", "error", err)
		return
	}
	w.mcp.start()
	w.mcp.gateway.Serve(ctx, st, &open.Process)
}

// record records a call.
func (m *mcpServers) record(c gateway.Call) {
	secrets := m.w.credentials.ofServers()
	m.w.record(ledger.MCPCall{
		Time: c.Time, Server: c.Server, Method: c.Method, Tool: c.Tool, RequestID: c.RequestID, Request: secrets.redact(c.Request), Response: secrets.redact(c.Response),
		Decision: c.Decision, Rule: c.Rule, AskID: c.AskID, Duration: c.Duration, Error: secrets.redact([]byte(c.Error)), Process: processOf(&c.Process), Sent: c.Sent, Received: c.Received,
	})
}

// Offered takes a server's offer.
func (m *mcpServers) Offered(o *aggregator.Offering) { m.gateway.Offered(o) }

// Happened takes a server's notification.
func (m *mcpServers) Happened(h *aggregator.Happening) { m.gateway.Happened(m.ctx, h) }

// Asked takes a server's question to the guest's agent.
func (m *mcpServers) Asked(ctx context.Context, q *aggregator.Question) ([]byte, error) {
	return m.gateway.Asked(ctx, q) //nolint:wrapcheck // the client's words
}

// Note takes none.
func (m *mcpServers) Note(string, []byte) {}

// Call serves the built-in server. It has the rights of the guest, not of the owner.
func (m *mcpServers) Call(ctx context.Context, method string, params []byte) ([]byte, error) {
	switch method {
	case builtin.MethodFetch:
		var req builtin.FetchRequest
		if err := peer.Unmarshal(params, &req); err != nil {
			return nil, err //nolint:wrapcheck // says what is wrong
		}
		resp, err := m.fetcher.Fetch(ctx, &req)
		if err != nil {
			return nil, said(err)
		}
		return peer.Marshal(resp) //nolint:wrapcheck // says what it did
	case builtin.MethodSnapshot:
		var req proto.SnapshotRequest
		err := peer.Unmarshal(params, &req)
		if err == nil {
			err = req.Validate()
		}
		if err == nil && req.Op == proto.SnapshotRead {
			err = errors.New("files are not read that way")
		}
		if err != nil {
			return nil, err //nolint:wrapcheck // says what is wrong
		}
		answer, err := m.w.guestSnapshot(ctx, &req)
		if err != nil {
			return nil, said(err)
		}
		var out bytes.Buffer
		if err := answer(&out); err != nil {
			return nil, said(err)
		}
		if out.Len() > maxSnapshotAnswer {
			return nil, peer.Errorf(peer.CodeTooLarge, "the answer has %d bytes; it may have %d", out.Len(), maxSnapshotAnswer)
		}
		return out.Bytes(), nil
	}
	return nil, peer.Errorf(-32601, "there is no %.60q", method)
}

// said is what of an error is for the guest.
func said(err error) error {
	_, message, hint := fault.Public(err)
	if hint != "" {
		message += "; " + hint
	}
	return peer.Errorf(peer.CodeFailed, "%s", message)
}

// ownerMCP does something for the owner.
func (w *Worker) ownerMCP(ctx context.Context, c *client, req *proto.MCPRequest) error {
	body, err := w.doMCP(ctx, req)
	if err != nil {
		return refuse(c, err)
	}
	if err := proto.WriteFrame(c, proto.WorkerReply{}); err != nil {
		return err //nolint:wrapcheck // the owner left
	}
	_, err = c.Write(body)
	return err //nolint:wrapcheck // as above
}

func (w *Worker) doMCP(ctx context.Context, req *proto.MCPRequest) ([]byte, error) {
	m := w.mcp
	if m == nil {
		return nil, fault.New(fault.Unavailable, "VM %s has no MCP servers", w.spec.ID)
	}
	if req.Op != proto.MCPStatus {
		m.start()
	}
	switch req.Op {
	case proto.MCPRefresh:
		if m.host == nil {
			return nil, fault.New(fault.Unavailable, "MCP servers cannot be started")
		}
		offers, _ := m.gateway.Servers()
		for _, o := range offers {
			if req.Server != "" && o.Server != req.Server {
				continue
			}
			if err := m.host.Refresh(ctx, o.Server); err != nil {
				w.log.Debug("an MCP server cannot be asked again", "server", o.Server, "error", err)
			}
		}
	case proto.MCPCall:
		return m.gateway.OutsideCall(ctx, req.Tool, req.Args) //nolint:wrapcheck // a fault
	case proto.MCPStatus:
	}
	offers, tools := m.gateway.Servers()
	return json.Marshal(mcp.Report(offersOf(offers), tools)) //nolint:wrapcheck // of our own types
}

func offersOf(offers []*aggregator.Offering) []mcp.ServerState {
	out := make([]mcp.ServerState, 0, len(offers))
	for _, o := range offers {
		out = append(out, mcp.ServerState{
			Name: o.Server, Up: o.Up, Error: o.Error, Title: o.Title, Version: o.Version, Protocol: o.Protocol,
			Tools: len(o.Tools), Resources: len(o.Resources) + len(o.Templates), Prompts: len(o.Prompts),
		})
	}
	return out
}
