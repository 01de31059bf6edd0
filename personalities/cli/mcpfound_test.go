package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/api"
)

func TestServersOfAgentsAreProposedAndTakenOver(t *testing.T) {
	f := newService(t)
	path := filepath.Join(f.home.Dir(), ".cursor", "mcp.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	const settings = `{"mcpServers": {
		"git": {"command": "/bin/git-mcp", "args": ["a", "b"], "env": {"GIT_TOKEN": "the-secret-value", "FROM": "${FROM_HOST}", "LOG": "debug"}},
		"have": {"command": "x"},
		"my server": {"url": "https://web.test/mcp"},
		"open": {"command": "x", "args": ["--token=abc"]}
	}}`
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	f.answer("GET /mcp/servers", api.MCPServersReply{Servers: []api.MCPServer{{Name: "have", Transport: "stdio"}}})
	r := f.capsem(nil, "mcp", "servers", "--detected")
	for _, want := range []string{
		"git  cursor  stdio  /bin/git-mcp (2 arguments)\n    to be kept as secrets: FROM, GIT_TOKEN\n    capsem mcp add --from cursor git\n",
		"capsem mcp add --from cursor 'my server' NEW-NAME\n", "open  cursor  stdio  x (1 arguments)\n    cannot be taken over: ",
	} {
		if r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not in %+v", want, r)
		}
	}
	if strings.Contains(r.stdout, "the-secret-value") || strings.Contains(r.stdout, "--token=abc") || strings.Contains(r.stdout, "have  cursor") {
		t.Errorf("%+v", r)
	}
	f.answer("PUT /secrets/{name}", api.Secret{Name: "x"})
	f.answer("POST /mcp/servers", api.Success{Success: true})
	if r = f.capsem(nil, "mcp", "add", "--from", "cursor", "git"); r.code != 0 || strings.Contains(r.stdout, "the-secret-value") || !strings.Contains(r.stdout, "mcp.git.GIT_TOKEN") {
		t.Errorf("%+v", r)
	}
	if r = f.capsem(nil, "mcp", "add", "--from", "cursor", "have"); r.code == 0 || !strings.Contains(r.stderr, "already") {
		t.Errorf("%+v", r)
	}
	calls := f.asked()
	for _, want := range []string{
		`PUT /secrets/mcp.git.FROM {"kind":"mcp","value":"yes"`, `PUT /secrets/mcp.git.GIT_TOKEN {"kind":"mcp","value":"the-secret-value"`,
		`"env":{"FROM":"secret:mcp.git.FROM","GIT_TOKEN":"secret:mcp.git.GIT_TOKEN","LOG":"debug"}`,
	} {
		if !strings.Contains(strings.Join(calls, "\n"), want) {
			t.Errorf("%s is not in\n%s", want, strings.Join(calls, "\n"))
		}
	}
}

// browser reads what is printed and agrees at the address in it.
type browser struct {
	t    *testing.T
	done chan struct{}
}

func (b browser) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if strings.HasPrefix(line, "http://") {
			go func() {
				defer close(b.done)
				resp, err := http.Get(strings.TrimSpace(line))
				if err != nil {
					b.t.Error(err)
					return
				}
				_ = resp.Body.Close()
			}()
		}
	}
	return len(p), nil
}

func TestSigningInToAServer(t *testing.T) {
	var web *httptest.Server
	web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		say := func(v map[string]any) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		}
		switch r.URL.Path {
		case "/mcp":
			w.WriteHeader(http.StatusUnauthorized)
		case "/.well-known/oauth-authorization-server":
			say(map[string]any{
				"issuer": web.URL, "authorization_endpoint": web.URL + "/authorize", "token_endpoint": web.URL + "/token",
				"response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"},
			})
		case "/authorize":
			q := r.URL.Query()
			http.Redirect(w, r, q.Get("redirect_uri")+"?code=c&state="+q.Get("state"), http.StatusFound)
		case "/token":
			say(map[string]any{"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 60})
		default:
			http.NotFound(w, r)
		}
	}))
	defer web.Close()
	f := newService(t)
	f.answer("GET /mcp/servers", api.MCPServersReply{Servers: []api.MCPServer{{Name: "web", Transport: "http", Target: web.URL + "/mcp"}, {Name: "prog", Transport: "stdio"}}})
	f.answer("PUT /mcp/servers/{name}/login", api.Success{Success: true})
	env := f.env("mcp", "login", "--client-id", "mine", "web")
	b := browser{t, make(chan struct{})}
	var out strings.Builder
	env.Stderr, env.Stdout = b, &out
	if err := Run(t.Context(), env); err != nil || !strings.Contains(out.String(), "signed in to web") || strings.Contains(out.String(), "an-access-token") {
		t.Errorf("%q, %v", out.String(), err)
	}
	<-b.done
	if want := fmt.Sprintf(`PUT /mcp/servers/web/login {"url":%q,"access":"an-access-token"`, web.URL+"/mcp"); !strings.Contains(strings.Join(f.asked(), "\n"), want) {
		t.Errorf("the service was asked %q", f.asked())
	}
	if r := f.capsem(nil, "mcp", "login", "prog"); r.code == 0 || !strings.Contains(r.stderr, "program") {
		t.Errorf("%+v", r)
	}
}
