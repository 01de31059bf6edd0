package gateway

import (
	"context"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp/peer"
)

// maxSubscriptions bounds the resources that the sessions of a VM are subscribed to, each counted once for each session.
const maxSubscriptions = 1000

// subscriptions are those of all sessions, by URI. The gateway's mu guards them.
type subscriptions struct {
	byURI map[string]map[*sdk.ServerSession]bool
	count int
}

// add notes one; it says no when there are too many.
func (s *subscriptions) add(uri string, session *sdk.ServerSession) bool {
	of := s.byURI[uri]
	switch {
	case of[session]:
		return true
	case s.count >= maxSubscriptions:
		return false
	case of == nil:
		of = map[*sdk.ServerSession]bool{}
		s.byURI[uri] = of
	}
	of[session] = true
	s.count++
	return true
}

// drop forgets one, and reports whether nobody is subscribed any more.
func (s *subscriptions) drop(uri string, session *sdk.ServerSession) (last bool) {
	of := s.byURI[uri]
	if of[session] {
		delete(of, session)
		s.count--
	}
	if len(of) == 0 {
		delete(s.byURI, uri)
	}
	return len(of) == 0
}

// leave forgets those of a session that has ended.
func (s *subscriptions) leave(session *sdk.ServerSession) {
	for uri := range s.byURI {
		s.drop(uri, session)
	}
}

// subscribe subscribes a session to a resource. Its server is asked each time: it may have been started anew since.
func (g *Gateway) subscribe(ctx context.Context, s *sdk.ServerSession, full string) error {
	server, uri, err := g.owner(full)
	if err != nil {
		return err
	}
	if o := g.now().servers[server]; o == nil || !o.Subscriptions {
		return &jsonrpc.Error{Code: jsonrpc.CodeMethodNotFound, Message: "MCP server " + server + " tells of no changes"}
	}
	g.mu.Lock()
	ok := g.subscribed.add(full, s)
	g.mu.Unlock()
	if !ok {
		return forClient(peer.Errorf(peer.CodeBusy, "this VM is subscribed to %d resources, and may be to no more", maxSubscriptions))
	}
	var out struct{}
	err = g.do(ctx, &request{session: s, server: server, tool: "resource:" + uri, method: "resources/subscribe", params: &sdk.SubscribeParams{URI: uri}}, &out)
	if err != nil {
		g.mu.Lock()
		g.subscribed.drop(full, s)
		g.mu.Unlock()
	}
	return err
}

// unsubscribe is the reverse; the server is told when no other session is subscribed.
func (g *Gateway) unsubscribe(ctx context.Context, s *sdk.ServerSession, full string) error {
	server, uri, err := g.owner(full)
	if err != nil {
		return err
	}
	g.mu.Lock()
	there := g.subscribed.byURI[full][s]
	last := g.subscribed.drop(full, s)
	g.mu.Unlock()
	if !there || !last {
		return nil
	}
	var out struct{}
	return g.do(ctx, &request{session: s, server: server, tool: "resource:" + uri, method: "resources/unsubscribe", params: &sdk.UnsubscribeParams{URI: uri}}, &out)
}
