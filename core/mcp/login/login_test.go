package login_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"capsem/core/fault"
	"capsem/core/mcp/login"
)

// rig is an MCP server that wants a sign-in, and who authorizes for it.
type rig struct {
	t   *testing.T
	web *httptest.Server

	mu        sync.Mutex
	challenge string
	redirect  string
	// What the test wants to be otherwise.
	open, noRegistration, refuse, mac bool
	elsewhere                         string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t}
	r.web = httptest.NewServer(r)
	t.Cleanup(r.web.Close)
	return r
}

func (r *rig) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	say := func(v any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			r.t.Error(err)
		}
	}
	switch req.URL.Path {
	case "/mcp":
		if !r.open {
			w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="`+r.web.URL+`/.well-known/oauth-protected-resource/mcp"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	case "/.well-known/oauth-protected-resource/mcp":
		say(map[string]any{"resource": r.web.URL + "/mcp", "authorization_servers": []string{r.web.URL}, "scopes_supported": []string{"read"}})
	case "/.well-known/oauth-authorization-server":
		meta := map[string]any{
			"issuer": r.web.URL, "authorization_endpoint": r.web.URL + "/authorize", "token_endpoint": r.web.URL + "/token" + r.elsewhere,
			"response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"}, "scopes_supported": []string{"read", "offline_access"},
		}
		if r.elsewhere != "" {
			meta["token_endpoint"] = r.elsewhere
		}
		if !r.noRegistration {
			meta["registration_endpoint"] = r.web.URL + "/register"
		}
		say(meta)
	case "/register":
		var in struct {
			Redirects []string `json:"redirect_uris"`
			Grants    []string `json:"grant_types"`
		}
		if json.NewDecoder(req.Body).Decode(&in) != nil || len(in.Redirects) != 1 || len(in.Grants) != 2 {
			r.t.Errorf("registered with %+v", in)
		}
		w.WriteHeader(http.StatusCreated)
		say(map[string]any{"client_id": "registered", "redirect_uris": in.Redirects, "token_endpoint_auth_method": "none"})
	case "/authorize":
		r.authorize(w, req)
	case "/token":
		r.token(w, req, say)
	default:
		http.NotFound(w, req)
	}
}

// authorize has the owner agree.
func (r *rig) authorize(w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("resource") != r.web.URL+"/mcp" || !strings.Contains(q.Get("scope"), "offline_access") {
		r.t.Errorf("asked to agree to %v", q)
	}
	r.challenge, r.redirect = q.Get("code_challenge"), q.Get("redirect_uri")
	back := url.Values{"state": {q.Get("state")}, "code": {"code-1"}}
	if r.refuse {
		back = url.Values{"state": {q.Get("state")}, "error": {"access_denied"}}
	}
	http.Redirect(w, req, r.redirect+"?"+back.Encode(), http.StatusFound)
}

// token exchanges a code.
func (r *rig) token(w http.ResponseWriter, req *http.Request, say func(any)) {
	sum := sha256.Sum256([]byte(req.PostFormValue("code_verifier")))
	if base64.RawURLEncoding.EncodeToString(sum[:]) != r.challenge || req.PostFormValue("code") != "code-1" || req.PostFormValue("redirect_uri") != r.redirect {
		w.WriteHeader(http.StatusBadRequest)
		say(map[string]any{"error": "invalid_grant", "error_description": "code-1"})
		return
	}
	kind := "Bearer"
	if r.mac {
		kind = "mac"
	}
	say(map[string]any{"access_token": "an-access-token", "refresh_token": "a-refresh-token", "token_type": kind, "expires_in": 3600})
}

// browse is the owner, who agrees.
func browse(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func TestSigningIn(t *testing.T) {
	r := newRig(t)
	g, err := login.Do(t.Context(), &login.Config{URL: r.web.URL + "/mcp", Show: func(ctx context.Context, address string) error {
		at, err := url.Parse(address)
		if err != nil {
			return err
		}
		// What any page or process can send does not end it, and brings nothing in.
		for _, forged := range []string{"?code=evil", "?code=evil&state=guess", "/x?code=evil&state=" + at.Query().Get("state")} {
			resp, err := http.Get(at.Query().Get("redirect_uri") + forged)
			if err != nil {
				return err
			}
			if resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s was answered %d", forged, resp.StatusCode)
			}
			_ = resp.Body.Close()
		}
		go func() {
			if err := browse(context.WithoutCancel(ctx), address); err != nil {
				t.Error(err)
			}
		}()
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if g.Access != "an-access-token" || g.Refresh != "a-refresh-token" || g.ClientID != "registered" || g.TokenURL != r.web.URL+"/token" || g.Resource != r.web.URL+"/mcp" || g.Expires.IsZero() || g.Basic {
		t.Errorf("got %+v", g)
	}
}

func TestSignInsThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*rig)
		want   fault.Code
	}{
		"no sign-in wanted":   {func(r *rig) { r.open = true }, fault.Conflict},
		"no registration":     {func(r *rig) { r.noRegistration = true }, fault.Unavailable},
		"the owner says no":   {func(r *rig) { r.refuse = true }, fault.Forbidden},
		"not a bearer token":  {func(r *rig) { r.mac = true }, fault.Unavailable},
		"plain HTTP far away": {func(r *rig) { r.elsewhere = "http://tokens.test/token" }, fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c.change(r)
			_, err := login.Do(t.Context(), &login.Config{URL: r.web.URL + "/mcp", Show: browse})
			if !fault.Is(err, c.want) || strings.Contains(fault.Line(err), "code-1") {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	if _, err := login.Do(t.Context(), &login.Config{URL: "http://server.test/mcp", Show: browse}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a server whose url is not https: %v", err)
	}
}

func TestARegisteredClientSignsIn(t *testing.T) {
	r := newRig(t)
	r.noRegistration = true
	g, err := login.Do(t.Context(), &login.Config{URL: r.web.URL + "/mcp", ClientID: "mine", ClientSecret: "my own secret", Show: browse})
	if err != nil || g.ClientID != "mine" || g.ClientSecret != "my own secret" {
		t.Errorf("%+v, %v", g, err)
	}
}

// far is a server elsewhere that leads to the loopback.
type far struct{ seen []string }

func (f *far) RoundTrip(req *http.Request) (*http.Response, error) {
	f.seen = append(f.seen, req.URL.Host)
	rec := httptest.NewRecorder()
	rec.Header().Set("WWW-Authenticate", `Bearer resource_metadata="http://127.0.0.1:1/x"`)
	rec.WriteHeader(http.StatusUnauthorized)
	return rec.Result(), nil
}

func TestAServerElsewhereDoesNotLeadToTheLoopback(t *testing.T) {
	f := &far{}
	_, err := login.Do(t.Context(), &login.Config{URL: "https://server.test/mcp", Show: browse, Transport: f})
	if err == nil {
		t.Error("signed in")
	}
	for _, host := range f.seen {
		if host != "server.test" {
			t.Errorf("a request went to %s", host)
		}
	}
}
