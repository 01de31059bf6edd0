// Package gateway is the MCP server that a VM sees: one that offers what all of the owner's servers offer, as far as the owner has
// approved it, and judges each call by the policy. The guest is hostile, and so are the servers.
package gateway

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/buildinfo"
	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
	"capsem/core/policy"
	"capsem/core/proto"
)

const (
	// maxSessions bounds the sessions of one VM, maxCalls their calls at once, maxHeld the bytes of answers that the guest has not taken yet.
	maxSessions, maxCalls, maxHeld = 64, 512, 64 << 20
	// pageSize is how many items a list answers with at once.
	pageSize = 500
	// writeTime is how long the guest may take to read an answer.
	writeTime = time.Minute
	// pinsTime is how often is looked whether the owner has approved something.
	pinsTime = time.Second
)

// Backend makes requests of servers.
type Backend interface {
	Request(ctx context.Context, call *aggregator.Call) ([]byte, error)
}

// Judge decides by the policy; it holds what the policy asks about until the owner has answered.
type Judge interface {
	Judge(ctx context.Context, req *policy.Request) policy.Verdict
}

// Call is one request of the guest, for the record.
type Call struct {
	Time                  time.Time
	Server, Method, Tool  string
	RequestID             string
	Request, Response     []byte
	Decision, Rule, Error string
	// AskID is the question to the owner that held it.
	AskID                  string
	Duration               time.Duration
	Process                proto.ProcessClaim
	Sent, Received         int64
	ProtocolVersion, Agent string
}

// Config is what a Gateway is made of.
type Config struct {
	// VM is the VM's name, for the policy.
	VM string
	// Judge decides, Record takes every call.
	Judge  Judge
	Record func(Call)
	// Inspect looks at what goes to servers and what comes back, after the policy has allowed it: a rule, and what was found, refuse it. It
	// notes in the passage what it has asked the owner. Nil looks at nothing.
	Inspect func(ctx context.Context, p *Passage) (rule, found string)
	// Pins are the tools that the owner has approved.
	Pins *mcp.Pins
	// Log takes what goes wrong.
	Log *slog.Logger
}

// Gateway serves the sessions of one VM. Make it with New.
type Gateway struct {
	cfg    Config
	server *sdk.Server
	calls  chan struct{}
	held   atomic.Int64

	// building is held while the view is made, so that the last one is of the newest offers.
	building sync.Mutex

	mu       sync.Mutex
	backend  Backend
	offers   map[string]*aggregator.Offering
	view     *view
	sessions map[*sdk.ServerSession]*proto.ProcessClaim
	count    int
	running  map[string]map[*sdk.ServerSession]int // calls of each server
	tokens   map[uint64]progressTo
	// subscribed are the resources that sessions hear of.
	subscribed subscriptions
	next       uint64
	checked    time.Time
	// expected are the servers there are to be, and settled is closed when each has been heard of.
	expected []string
	settled  chan struct{}
}

// progressTo is where the progress of a request goes.
type progressTo struct {
	session *sdk.ServerSession
	token   any
}

// New returns a Gateway that offers nothing yet.
func New(cfg Config) *Gateway {
	g := &Gateway{
		cfg: cfg, calls: make(chan struct{}, maxCalls), offers: map[string]*aggregator.Offering{},
		sessions: map[*sdk.ServerSession]*proto.ProcessClaim{}, running: map[string]map[*sdk.ServerSession]int{}, tokens: map[uint64]progressTo{},
		subscribed: subscriptions{byURI: map[string]map[*sdk.ServerSession]bool{}},
	}
	g.settled = make(chan struct{})
	changing := true
	g.server = sdk.NewServer(&sdk.Implementation{Name: "capsem", Title: "capsem: the tools of this VM's owner", Version: buildinfo.Version}, &sdk.ServerOptions{
		Instructions: "Tools run outside this VM, on servers of its owner, under the owner's policy. A refused call says which rule refused it.",
		Capabilities: &sdk.ServerCapabilities{
			Tools: &sdk.ToolCapabilities{ListChanged: changing}, Resources: &sdk.ResourceCapabilities{ListChanged: changing, Subscribe: true},
			Prompts: &sdk.PromptCapabilities{ListChanged: changing}, Completions: &sdk.CompletionCapabilities{}, Logging: &sdk.LoggingCapabilities{}, //nolint:staticcheck // servers and clients of older revisions have it
		},
		CompletionHandler: func(context.Context, *sdk.CompleteRequest) (*sdk.CompleteResult, error) {
			return nil, errUnknown("completion")
		},
		SubscribeHandler:   func(context.Context, *sdk.SubscribeRequest) error { return nil },
		UnsubscribeHandler: func(context.Context, *sdk.UnsubscribeRequest) error { return nil },
	})
	g.server.AddReceivingMiddleware(g.receive)
	g.view = makeView(nil, cfg.Pins)
	return g
}

// Attach says who makes the requests. It is called once, before the first session.
func (g *Gateway) Attach(b Backend) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.backend = b
}

// Stream is a stream of the guest.
type Stream interface {
	io.ReadWriteCloser
	SetWriteDeadline(t time.Time) error
}

// now is what is offered at this moment: pins that the owner has changed count at once.
func (g *Gateway) now() *view {
	g.mu.Lock()
	look := time.Since(g.checked) > pinsTime
	if look {
		g.checked = time.Now()
	}
	v := g.view
	g.mu.Unlock()
	if !look {
		return v
	}
	changed, err := g.cfg.Pins.Refresh()
	if err != nil {
		g.cfg.Log.Warn("the approvals of MCP tools cannot be read", "error", err)
	}
	if !changed {
		return v
	}
	return g.rebuild()
}

// rebuild makes the view anew, and tells the guest of what has changed. No call waits for that.
func (g *Gateway) rebuild() *view {
	g.building.Lock()
	defer g.building.Unlock()
	g.mu.Lock()
	offers, old := slices.Collect(maps.Values(g.offers)), g.view
	g.mu.Unlock()
	fresh := makeView(offers, g.cfg.Pins)
	g.mu.Lock()
	g.view = fresh
	g.mu.Unlock()
	if err := g.cfg.Pins.Saw(fresh.tools, time.Now()); err != nil {
		g.cfg.Log.Warn("new MCP tools cannot be noted, and so not be approved", "error", err)
	}
	g.announce(old, fresh)
	return fresh
}

// announce tells sessions that lists have changed. The SDK does that when something is added to its own lists, which nobody sees.
func (g *Gateway) announce(old, fresh *view) {
	const mark = "changed"
	if !fresh.tools.Same(old.tools) {
		g.server.AddTool(&sdk.Tool{Name: mark, InputSchema: map[string]any{"type": "object"}}, nil)
		g.server.RemoveTools(mark)
	}
	if !slices.Equal(fresh.resourceKeys, old.resourceKeys) {
		g.server.AddResource(&sdk.Resource{Name: mark, URI: "capsem://changed/"}, nil)
		g.server.RemoveResources("capsem://changed/")
	}
	if !slices.Equal(fresh.promptKeys, old.promptKeys) {
		g.server.AddPrompt(&sdk.Prompt{Name: mark}, nil)
		g.server.RemovePrompts(mark)
	}
}

// Watch follows the owner's approvals until ctx ends, so that sessions hear of them.
func (g *Gateway) Watch(ctx context.Context) {
	tick := time.NewTicker(2 * pinsTime)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.now()
		case <-ctx.Done():
			return
		}
	}
}

// Offered takes a server's offer.
func (g *Gateway) Offered(o *aggregator.Offering) {
	g.mu.Lock()
	g.offers[o.Server] = o
	g.mu.Unlock()
	g.rebuild()
	g.settle()
	if o.Up {
		g.cfg.Log.Info("an MCP server is up", "server", o.Server, "tools", len(o.Tools))
	} else {
		g.cfg.Log.Warn("an MCP server is down", "server", o.Server, "error", o.Error)
	}
}

// settleTime is how long the first requests wait for servers to be heard of: clients that list once would never see their tools.
const settleTime = 5 * time.Second

// settle notes when all servers have been heard of.
func (g *Gateway) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range g.expected {
		if g.offers[name] == nil {
			return
		}
	}
	select {
	case <-g.settled:
	default:
		if g.expected != nil {
			close(g.settled)
		}
	}
}

// wait lets the servers come up.
func (g *Gateway) wait(ctx context.Context) {
	select {
	case <-g.settled:
		return
	default:
	}
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-g.settled:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Expect says which servers there are to be, and drops the offers of others.
func (g *Gateway) Expect(servers []string) {
	g.mu.Lock()
	g.expected = servers
	for name := range g.offers {
		if !slices.Contains(servers, name) {
			delete(g.offers, name)
		}
	}
	g.mu.Unlock()
	g.rebuild()
	g.settle()
}

// Servers are the offers of the servers, and All their tools, for the owner.
func (g *Gateway) Servers() (offers []*aggregator.Offering, tools []*mcp.Entry) {
	v := g.now()
	for _, o := range v.servers {
		offers = append(offers, o)
	}
	slices.SortFunc(offers, func(a, b *aggregator.Offering) int { return strings.Compare(a.Server, b.Server) })
	return offers, v.tools.All()
}

// Happened hands a server's notification to the sessions it is for.
func (g *Gateway) Happened(ctx context.Context, h *aggregator.Happening) {
	switch h.Kind {
	case aggregator.Progress:
		g.mu.Lock()
		to, ok := g.tokens[h.Token]
		g.mu.Unlock()
		var p sdk.ProgressNotificationParams
		if ok && json.Unmarshal(h.Params, &p) == nil && (p.Message == "" || g.lets(ctx, h.Server, "progress", h.Params)) {
			p.ProgressToken, p.Meta = to.token, nil
			_ = to.session.NotifyProgress(ctx, &p) // it may have left
		}
	case aggregator.Log:
		var p sdk.LoggingMessageParams //nolint:staticcheck // servers and clients of older revisions have it
		if json.Unmarshal(h.Params, &p) != nil || !g.lets(ctx, h.Server, "log", h.Params) {
			return
		}
		p.Logger, p.Meta = strings.TrimSuffix(h.Server+"/"+p.Logger, "/"), nil
		g.mu.Lock()
		sessions := make([]*sdk.ServerSession, 0, len(g.sessions))
		for s := range g.sessions {
			sessions = append(sessions, s)
		}
		g.mu.Unlock()
		for _, s := range sessions {
			_ = s.Log(ctx, &p) //nolint:staticcheck // as above
		}
	case aggregator.Updated:
		var p sdk.ResourceUpdatedNotificationParams
		if json.Unmarshal(h.Params, &p) == nil {
			_ = g.server.ResourceUpdated(ctx, &sdk.ResourceUpdatedNotificationParams{URI: mcp.JoinURI(h.Server, p.URI)})
		}
	}
}

// validURI keeps what a server calls a URI to what one can be.
func validURI(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme != "" && plainURI(text, maxTemplate)
}

// Running is how many calls of a server have not been answered yet.
func (g *Gateway) Running(server string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, calls := range g.running[server] {
		n += calls
	}
	return n
}
