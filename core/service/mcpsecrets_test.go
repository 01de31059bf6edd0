package service_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/credential"
	"capsem/core/fault"
	"capsem/core/service"
	"capsem/core/service/servicetest"
)

// serverSecrets are the names and lengths of the secrets that a VM's MCP servers would get.
func serverSecrets(t *testing.T, s *service.Service, vm string) string {
	t.Helper()
	body, err := s.MCPCall(t.Context(), "local__secrets", api.MCPCallRequest{VM: vm})
	var r struct{ Content []struct{ Text string } }
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil || len(r.Content) != 1 {
		t.Fatalf("%s, %v", body, err)
	}
	return r.Content[0].Text
}

func TestWorkersGetOnlyTheSecretsThatServersReferTo(t *testing.T) {
	home := servicetest.Home(t)
	opts := servicetest.Options(t, home)
	log := &book{}
	opts.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, _ := servicetest.Start(t, opts)
	used, unused, token := "used-"+strings.Repeat("kQ7", 5), "unused-"+strings.Repeat("kQ8", 5), "token-"+strings.Repeat("kQ9", 6)
	for name, value := range map[string]string{"used": used, "unused": unused} {
		if _, err := s.SetSecret(t.Context(), name, api.SecretRequest{Kind: credential.ForServers, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	vm := create(t, s, api.ProvisionRequest{Name: "one"})
	if got := serverSecrets(t, s, vm); got != "" {
		t.Errorf("without servers: %q", got)
	}
	if err := s.MCPAdd(&api.MCPAddRequest{Name: "web", URL: "https://web.test/mcp", Headers: map[string]string{"X-Key": "secret:used"}}); err != nil {
		t.Fatal(err)
	}
	happens(t, "the news of what servers want", func() bool { return serverSecrets(t, s, vm) == "used 20" })
	login := &api.MCPLoginRequest{URL: "https://web.test/mcp", Access: token, Refresh: "refresh-token", TokenURL: "https://auth.test/token", ClientID: "c"}
	if err := s.MCPLogin(t.Context(), "web", login); err != nil {
		t.Fatal(err)
	}
	if got := serverSecrets(t, s, vm); got != "mcp-login.web 24, used 20" {
		t.Errorf("signed in: %q", got)
	}
	for name, bad := range map[string]api.MCPLoginRequest{
		"another url":     {URL: "https://other.test/mcp", Access: token},
		"plain token url": {URL: login.URL, Access: token, Refresh: "refresh-token", TokenURL: "http://auth.test/token", ClientID: "c"},
		"no token":        {URL: login.URL},
	} {
		if err := s.MCPLogin(t.Context(), "web", &bad); !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := say(t, s, vm, "env X"); strings.Contains(got, token) {
		t.Errorf("the guest has %q", got)
	}
	// A url that the owner writes anew does not get what was for another.
	if text, err := os.ReadFile(home.UserConfig()); err != nil || os.WriteFile(home.UserConfig(), []byte(strings.ReplaceAll(string(text), "web.test", "evil.test")), 0o600) != nil {
		t.Fatal(err)
	}
	happens(t, "the news of what servers want", func() bool { return serverSecrets(t, s, vm) == "used 20" })
	for _, value := range []string{used, unused, token} {
		nowhere(t, home.Dir(), log.String(), value)
	}
	if err := s.MCPRemove("web"); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Secrets(); err != nil || len(list.Secrets) != 2 {
		t.Errorf("after the server is removed there are %+v, %v", list.Secrets, err)
	}
}

func TestSignInsToServersAreRenewed(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, basic := r.BasicAuth()
		if !basic || id != "c" || secret != "s s" && secret != "s+s" || r.PostFormValue("refresh_token") != "refresh-token" || r.PostFormValue("resource") != "https://web.test/" || r.PostFormValue("client_secret") != "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = w.Write([]byte(`{"access_token":"the-next-token","refresh_token":"the-next-refresh","expires_in":3600}`))
	}))
	defer web.Close()
	home := servicetest.Home(t)
	store := credential.Open(home, nil, slog.New(slog.DiscardHandler))
	now := time.Now()
	err := store.Set(credential.Entry{
		Name: "mcp-login.web", Kind: credential.ForServers, Form: credential.OAuth, Value: "the-first-token",
		Token: &credential.Token{
			Client: credential.ClientServer, Refresh: "refresh-token", URL: web.URL, ClientID: "c", ClientSecret: "s s", Basic: true,
			Server: "https://web.test/mcp", Resource: "https://web.test/", Expires: now.Add(time.Minute),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	renewed, failed := store.Renew(t.Context(), credential.Client(http.DefaultTransport), now)
	if !renewed || len(failed) != 0 {
		t.Fatalf("%v, %v", renewed, failed)
	}
	e, err := store.Get("mcp-login.web")
	if err != nil || e.Value != "the-next-token" || e.Token.Refresh != "the-next-refresh" || !e.Token.Expires.After(now.Add(30*time.Minute)) || e.Token.Server != "https://web.test/mcp" {
		t.Errorf("%+v, %v", e.Token, err)
	}
	if again, _ := store.Renew(t.Context(), credential.Client(http.DefaultTransport), now); again {
		t.Error("it was renewed again at once")
	}
	if c := credential.For([]credential.Entry{e}, "family", nil); len(c.Grants)+len(c.Env)+len(c.Files) != 0 {
		t.Error("a VM has a placeholder of it")
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
