package localapi_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/mcp"
)

func TestMCPRoutes(t *testing.T) {
	s := serve(t)
	ctx := t.Context()
	if _, err := s.CallMCP(ctx, "local__echo", api.MCPCallRequest{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a call without a VM: %v", err)
	}
	vm := s.vm()
	err := s.AddMCPServer(ctx, &api.MCPAddRequest{Name: "web", URL: "https://web.test/mcp", Headers: map[string]string{"X-Key": "secret:web-key"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]api.MCPAddRequest{
		"twice": {Name: "web", URL: "https://web.test/mcp"}, "a reserved name": {Name: "local", Command: "x"}, "a name with __": {Name: "a__b", Command: "x"},
		"neither": {Name: "one"}, "both": {Name: "one", Command: "x", URL: "https://web.test/"}, "a secret in clear": {Name: "one", Command: "x", Env: map[string]string{"API_KEY": "abc"}},
		"a secret in arguments": {Name: "one", Command: "x", Args: []string{"--key=secret:x"}}, "a user in the url": {Name: "one", URL: "https://u:p@web.test/"},
	} {
		if err := s.AddMCPServer(ctx, &bad); err == nil {
			t.Errorf("%s was added", name)
		}
	}
	happens(t, "the worker's answer", func() bool {
		list, err := s.MCPServers(ctx)
		if err != nil || len(list.Servers) != 2 || list.Servers[1].Name != "web" || list.Servers[1].Target != "https://web.test/mcp" {
			t.Fatalf("%+v, %v", list, err)
		}
		return list.Servers[0].State == "connected" && len(list.Servers[0].VMs) == 1
	})
	tools, err := s.MCPTools(ctx, mcp.Local)
	if err != nil || len(tools.Tools) != 2 || !tools.Tools[0].Approved {
		t.Errorf("%+v, %v", tools, err)
	}
	if none, err := s.MCPTools(ctx, "web"); err != nil || len(none.Tools) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	for _, in := range []string{vm, ""} {
		body, err := s.CallMCP(ctx, "local__echo", api.MCPCallRequest{VM: in, Arguments: json.RawMessage(`{"x":"seven"}`)})
		if err != nil || !strings.Contains(string(body), "seven") {
			t.Errorf("in %q: %s, %v", in, body, err)
		}
	}
	if _, err := s.CallMCP(ctx, "local__echo", api.MCPCallRequest{VM: "other"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("in another VM: %v", err)
	}
	if _, err := s.ApproveMCP(ctx, "web__x", ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("approved: %v", err)
	}
	if _, err := s.RefreshMCP(ctx, "web"); err != nil {
		t.Error(err)
	}
	testLoginRoutes(t, s)
	if err := s.RemoveMCPServer(ctx, "web"); err != nil {
		t.Error(err)
	}
	if err := s.RemoveMCPServer(ctx, "web"); !fault.Is(err, fault.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

func testLoginRoutes(t *testing.T, s *served) {
	t.Helper()
	login := &api.MCPLoginRequest{URL: "https://web.test/mcp", Access: "an-access-token"}
	if err := s.SetMCPLogin(t.Context(), "web", login); err != nil {
		t.Error(err)
	}
	if err := s.SetMCPLogin(t.Context(), "other", login); !fault.Is(err, fault.NotFound) {
		t.Errorf("signed in to a server that is not there: %v", err)
	}
	if list, err := s.Secrets(t.Context()); err != nil || len(list.Secrets) != 1 || list.Secrets[0].Name != mcp.LoginSecret("web") {
		t.Errorf("%+v, %v", list, err)
	}
	if err := s.RemoveMCPLogin(t.Context(), "web"); err != nil {
		t.Error(err)
	}
	if err := s.RemoveMCPLogin(t.Context(), "web"); !fault.Is(err, fault.NotFound) {
		t.Errorf("signed out twice: %v", err)
	}
	for _, body := range []string{"{", `{"url":1}`, strings.Repeat(" ", api.MaxBody+1)} {
		if code, text, _ := s.raw("PUT", "/mcp/servers/web/login", body, map[string]string{"Content-Type": "application/json"}); code < 400 || code > 499 {
			t.Errorf("%.20q: %d %s", body, code, text)
		}
	}
}

// happens waits for something that is to happen.
func happens(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(5*time.Millisecond), time.NewTimer(time.Minute)
	defer tick.Stop()
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%s has not happened", what)
		}
	}
}
