package host_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp"
	"capsem/core/mcp/peer"
)

// signedIn is a server that takes one token, and who renews that.
type signedIn struct {
	mu sync.Mutex
	// good is what the server takes, has what the worker has, and next what renewing gives.
	good, has, next string
	renewals        int
	refused, called []string // tokens
}

// Resolve gives the token.
func (s *signedIn) Resolve(_ context.Context, name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != mcp.LoginSecret("web") || s.has == "" {
		return "", errors.New("there is none")
	}
	return s.has, nil
}

// Renew gives the next one.
func (s *signedIn) Renew(_ context.Context, _, mark string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mcp.Mark(s.has) != mark {
		return nil
	}
	s.renewals++
	if s.next == "" {
		return errors.New("there is none")
	}
	s.has, s.next = s.next, ""
	return nil
}

// expire has the server take another token from now on.
func (s *signedIn) expire(good, next string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.good, s.next, s.renewals, s.refused, s.called = good, next, 0, nil, nil
}

func (s *signedIn) serve(t *testing.T) string {
	t.Helper()
	server := sdk.NewServer(&sdk.Implementation{Name: "web", Version: "1"}, nil)
	sdk.AddTool(server, &sdk.Tool{Name: "act"}, func(_ context.Context, req *sdk.CallToolRequest, _ args) (*sdk.CallToolResult, any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.called = append(s.called, req.Extra.Header.Get("Authorization"))
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "done"}}}, nil, nil
	})
	handler := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, nil)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		ok := r.Header.Get("Authorization") == "Bearer "+s.good
		if !ok && r.Method == http.MethodPost {
			s.refused = append(s.refused, r.Header.Get("Authorization"))
		}
		s.mu.Unlock()
		if !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { web.CloseClientConnections(); web.Close() })
	return web.URL
}

func TestAnExpiredSignInIsRenewedOnce(t *testing.T) {
	s := &signedIn{good: "token-1", has: "token-1"}
	r := newRigWith(t, s, "", mcp.Definition{Name: "web", URL: s.serve(t)})
	r.up("web", true)
	if _, err := r.pins.Approve("web", ""); err != nil {
		t.Fatal(err)
	}
	c := r.client(nil)
	eventually(t, func() bool { return slices.Contains(names(t, c), "web__act") })
	s.expire("token-2", "token-2")
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if got, err := call(t, c, "web__act", nil); err != nil || got != "done" {
				t.Errorf("a call with an expired token: %q, %v", got, err)
			}
		})
	}
	all.Wait()
	if s.renewals != 1 || len(s.called) != 10 || len(s.refused) == 0 || len(s.refused) > 10 {
		t.Errorf("%d renewals, %d calls, %d refused", s.renewals, len(s.called), len(s.refused))
	}
	// There is no next one: the call is not made, and says what to do; the session goes on.
	s.expire("token-3", "")
	_, err := call(t, c, "web__act", nil)
	if codeOf(err) != peer.CodeFailed || !strings.Contains(err.Error(), "not carried out") || !strings.Contains(err.Error(), "capsem mcp login web") {
		t.Errorf("without a next token: %v", err)
	}
	// Nor does a server that takes no token get more than one.
	s.expire("none", "token-3")
	_, err = call(t, c, "web__act", nil)
	if !strings.Contains(err.Error(), "capsem mcp login web") || s.renewals != 1 || len(s.refused) != 2 || len(s.called) != 0 {
		t.Errorf("a server that takes no token: %v, %d renewals, %d refused", err, s.renewals, len(s.refused))
	}
	s.expire("token-3", "")
	if got, err := call(t, c, "web__act", nil); err != nil || got != "done" {
		t.Errorf("after that: %q, %v", got, err)
	}
}

func TestAServerThatWantsASignInSaysSo(t *testing.T) {
	s := &signedIn{good: "token"}
	r := newRigWith(t, s, "", mcp.Definition{Name: "web", URL: s.serve(t)})
	if o := r.up("web", false); o.Error != "MCP server web wants a sign-in, and the call was not carried out; its owner has to do that: capsem mcp login web" {
		t.Errorf("it is down because of %q", o.Error)
	}
}
