package service

import (
	"context"
	"fmt"

	"capsem/core/api"
	"capsem/core/ledger"
	"capsem/core/policy"
)

// maxRefused is how many refused requests a suggestion looks at, the newest.
const maxRefused = 5000

// SuggestPolicy gives the narrowest rules that would have allowed what was refused in a session.
func (s *Service) SuggestPolicy(ctx context.Context, id string) (api.SuggestReply, error) {
	path, err := s.recordOf(ctx, id)
	if err != nil {
		return api.SuggestReply{}, err
	}
	var refused []policy.Request
	filter := ledger.Filter{Kinds: []string{"net", "dns", "mcp"}, Decision: "denied", Limit: ledger.MaxPage}
	for len(refused) < maxRefused {
		page, err := ledger.History(ctx, path, filter)
		if err != nil {
			return api.SuggestReply{}, err //nolint:wrapcheck // says what it did
		}
		for _, e := range page.Entries {
			if req, ok := requestOf(e); ok {
				refused = append(refused, req)
			}
		}
		if page.Next == "" {
			break
		}
		filter.After = page.Next
	}
	rules := policy.Suggest(refused)
	if len(rules) == 0 {
		return api.SuggestReply{}, nil
	}
	text, err := policy.Format(rules)
	return api.SuggestReply{Policy: text, Rules: len(rules)}, err //nolint:wrapcheck // says what it did
}

// requestOf is the request that a row of the record is about.
func requestOf(e ledger.Entry) (policy.Request, bool) {
	text := func(name string) string {
		if v, ok := e.Fields[name]; ok && v != nil {
			return fmt.Sprint(v)
		}
		return ""
	}
	req := policy.Request{Process: text("process_name"), BodySize: -1}
	switch e.Kind {
	case "dns":
		req.Host, req.Scheme = text("name"), "dns"
	case "mcp":
		req.MCPServer, req.MCPTool = text("server_name"), text("tool_name")
		return req, req.MCPServer != ""
	default:
		if status, _ := e.Fields["status_code"].(int64); status == 200 {
			return req, false // refused by a git rule, in git's own form: a rule on connections would not help
		}
		port, _ := e.Fields["port"].(int64)
		if port <= 0 || port > 65535 {
			return req, false
		}
		req.Host, req.Port, req.Method, req.Path, req.Query = text("domain"), uint16(port), text("method"), text("path"), text("query")
		req.Scheme = map[string]string{"http": "http", "websocket": "wss", "tcp": "tcp", "tunnel": "https"}[text("conn_type")]
		if req.Scheme == "" {
			req.Scheme = "https"
		}
	}
	return req, req.Host != ""
}
