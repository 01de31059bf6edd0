package service_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"capsem/core/api"
	"capsem/core/credential"
	"capsem/core/service/servicetest"
)

// tokens gives the next token for each, and counts how often it was asked.
func tokens(t *testing.T) (web *httptest.Server, asked *atomic.Int64) {
	t.Helper()
	asked = &atomic.Int64{}
	web = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		if r.PostFormValue("refresh_token") != fmt.Sprintf("refresh-%d", n) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, `{"access_token":"access-%d-%d","refresh_token":"refresh-%d","expires_in":3600}`, n, n, n+1)
	}))
	t.Cleanup(web.Close)
	return web, asked
}

func TestATokenThatItsServerRefusesIsRenewedOnce(t *testing.T) {
	web, asked := tokens(t)
	home := servicetest.Home(t)
	opts := servicetest.Options(t, home)
	opts.Transport = web.Client().Transport
	s, _ := servicetest.Start(t, opts)
	if err := s.MCPAdd(&api.MCPAddRequest{Name: "web", URL: "https://web.test/mcp"}); err != nil {
		t.Fatal(err)
	}
	login := &api.MCPLoginRequest{URL: "https://web.test/mcp", Access: "the-first-token", Refresh: "refresh-1", TokenURL: web.URL, ClientID: "c"}
	if err := s.MCPLogin(t.Context(), "web", login); err != nil {
		t.Fatal(err)
	}
	one, two := create(t, s, api.ProvisionRequest{Name: "one"}), create(t, s, api.ProvisionRequest{Name: "two"})
	refuse := func(vm, name string) {
		t.Helper()
		args, err := json.Marshal(name)
		if err == nil {
			_, err = s.MCPCall(t.Context(), "local__refuse", api.MCPCallRequest{VM: vm, Arguments: args})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	both := func(want string) func() bool {
		return func() bool { return serverSecrets(t, s, one) == want && serverSecrets(t, s, two) == want }
	}
	happens(t, "the sign-in", both("mcp-login.web 15"))
	refuse(one, "mcp-login.web")
	happens(t, "the next token", both("mcp-login.web 10"))
	if n := asked.Load(); n != 1 {
		t.Errorf("it was asked for %d times", n)
	}
	// A server that refuses that one too has none renewed for a while, and the workers are told.
	refuse(two, "mcp-login.web")
	happens(t, "the news that there is no next", both("mcp-login.web 10 and no next"))
	if n := asked.Load(); n != 1 {
		t.Errorf("it was asked for %d times", n)
	}
	// Signing in again makes it good.
	if err := s.MCPLogin(t.Context(), "web", login); err != nil {
		t.Fatal(err)
	}
	happens(t, "the new sign-in", both("mcp-login.web 15"))
	// Nothing else can be renewed in that way.
	if _, err := s.SetSecret(t.Context(), "other", api.SecretRequest{Kind: credential.ForServers, Value: "kQ7kQ7kQ7kQ7"}); err != nil {
		t.Fatal(err)
	}
	refuse(one, "other")
	refuse(one, "mcp-login.none")
	happens(t, "the answer", both("mcp-login.web 15"))
	if n := asked.Load(); n != 1 {
		t.Errorf("it was asked for %d times", n)
	}
}
