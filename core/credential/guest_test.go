package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"capsem/core/proto"
)

func jwt(claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"RS256","typ":"JWT","kid":"k"}`)) + "." + enc([]byte(claims)) + "." + strings.Repeat("sIgNaTuR3", 10)
}

// Files of sign-ins, as the command lines write them.
var (
	claudeAccess, claudeRefresh = "sk-" + "ant-oat01-" + strings.Repeat("Qw3-", 24), "sk-" + "ant-ort01-" + strings.Repeat("Er4_", 24)
	codexAccess                 = jwt(`{"exp":1900000000,"email":"who@example.test","https://api.openai.com/auth":{"chatgpt_account_id":"acc-1","chatgpt_plan_type":"pro"}}`)
	claudeText                  = fmt.Sprintf(`{"claudeAiOauth":{"accessToken":%q,"refreshToken":%q,"expiresAt":1800000000000,"scopes":["user:inference"],"subscriptionType":"max"}}`, claudeAccess, claudeRefresh)
	codexText                   = fmt.Sprintf(`{"OPENAI_API_KEY":null,"tokens":{"id_token":%q,"access_token":%q,"refresh_token":"rt_%s","account_id":"acc-1"},"last_refresh":"2026-01-01T00:00:00Z"}`, codexAccess, codexAccess, strings.Repeat("Xy7", 20))
	geminiText                  = fmt.Sprintf(`{"access_token":"ya29.%s","refresh_token":"1//%s","scope":"a b","token_type":"Bearer","expiry_date":1800000000000,"client_id":"c.test","client_secret":"s"}`, strings.Repeat("Go1", 40), strings.Repeat("Re2", 20))
)

func entries(t *testing.T) []Entry {
	t.Helper()
	var out []Entry
	for name, c := range map[string]struct {
		e      Entry
		value  string
		signIn bool
	}{
		"claude-key": {Entry{}, anthropicKey, false}, "github": {Entry{}, githubKey, false}, "claude": {Entry{}, claudeText, true}, "codex": {Entry{}, codexText, true},
		"gemini": {Entry{}, geminiText, true}, "gitlab": {Entry{}, "glp" + "at-" + strings.Repeat("xY9-", 5), false},
		"db": {Entry{Kind: Generic, User: "me", Hosts: []string{"db.test"}}, "p@ss/word:1234", false},
	} {
		c.e.Name = name
		e, err := NewEntry(c.e, c.value, c.signIn)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, e)
	}
	return out
}

// values are what must not be seen anywhere.
func values(all []Entry) (out []string) {
	for _, e := range all {
		out = append(out, e.Value)
		if e.Token != nil && e.Token.Refresh != "" {
			out = append(out, e.Token.Refresh, "who@example.test")
			if e.Token.Identity != "" {
				out = append(out, e.Token.Identity)
			}
		}
	}
	return out
}

func TestPlaceholdersAreShapedAsTheirValuesAndDifferByVM(t *testing.T) {
	for value, prefix := range map[string]string{
		anthropicKey: "sk-" + "ant-api03-", githubKey: "gh" + "p_", "glp" + "at-" + strings.Repeat("xY9-", 5): "glp" + "at-",
		"AI" + "za" + strings.Repeat("Zx_9-", 7): "AI" + "za", "mycorp_live_" + strings.Repeat("0af", 12): "mycorp_live_",
		"0123abcd-0123-4567-89ab-0123456789ab": "", "some.long:thing/with.dots": "",
	} {
		e, err := NewEntry(Entry{Name: "x", Hosts: []string{"x.test"}}, value, false)
		if err != nil {
			t.Fatal(err)
		}
		a, b, again := e.placeholders("family 1").value, e.placeholders("family 2").value, e.placeholders("family 1").value
		if len(a) != len(value) || !strings.HasPrefix(a, prefix) || a == value || a == b || a != again {
			t.Errorf("%q: %q and %q", prefix, a, b)
		}
		for i := range a {
			sep := strings.IndexByte(separators, value[i]) >= 0
			if sep && a[i] != value[i] || !sep && !strings.ContainsAny(value[len(prefix):], digits) && strings.IndexByte(digits, a[i]) >= 0 {
				t.Errorf("%q at %d of %q", a[i], i, a)
			}
		}
	}
}

func TestTheGuestGetsPlaceholdersOnly(t *testing.T) {
	all := entries(t)
	c := For(all, "family", nil)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(c.Env, c.Files)
	everything, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values(all) {
		if strings.Contains(text, v) || strings.Contains(string(everything), v) || strings.Contains(fmt.Sprintf("%+v %#v", c, c), v) {
			t.Errorf("the guest, or a print, gets %.12s...", v)
		}
	}
	if raw, err := proto.Marshal(c); err != nil || !strings.Contains(string(raw), anthropicKey) {
		t.Errorf("the worker does not get the values: %v", err)
	}
	for _, name := range []string{"ANTHROPIC_API_KEY", "GH_TOKEN", "GITHUB_TOKEN", "GITLAB_TOKEN"} {
		if c.Env[name] == "" {
			t.Errorf("there is no %s", name)
		}
	}
	files := map[string]string{}
	for _, f := range c.Files {
		files[f.Path] = f.Text
	}
	for _, name := range []string{".claude/.credentials.json", ".claude.json", ".codex/auth.json", ".gemini/oauth_creds.json", ".gemini/settings.json", ".git-credentials", ".gitconfig"} {
		if files[name] == "" {
			t.Errorf("there is no %s", name)
		}
		if strings.HasSuffix(name, ".json") && !json.Valid([]byte(files[name])) {
			t.Errorf("%s is no JSON", name)
		}
	}
	for line := range strings.Lines(files[".git-credentials"]) {
		if u, err := url.Parse(strings.TrimSpace(line)); err != nil || u.Host == "" || u.User == nil {
			t.Errorf("git cannot read %q: %v", line, err)
		}
	}
}

func TestTheSignInFilesAreTakenBackAsTheirOwn(t *testing.T) {
	for _, text := range []string{claudeText, codexText, geminiText} {
		e, err := NewEntry(Entry{Name: "x"}, text, true)
		if err != nil {
			t.Fatal(err)
		}
		_, files := Prepare([]Entry{e}, "family")
		kind, access, token, err := parseSignIn(files[0].Text)
		if err != nil || kind != e.Kind || access != e.placeholders("family").value || token.Client != e.Token.Client {
			t.Errorf("%s: %s %v", e.Kind, kind, err)
		}
		if !token.Expires.IsZero() && token.Expires.Before(time.Now().AddDate(10, 0, 0)) {
			t.Errorf("%s: the guest's own would end %v, and be renewed there", kind, token.Expires)
		}
		if kind == "openai" && (!strings.Contains(string(must64(t, strings.Split(access, ".")[1])), "acc-1")) {
			t.Error("the account is not in the placeholder")
		}
	}
}

func must64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// to sends every request to a server of ours.
type to struct{ base string }

func (r to) RoundTrip(req *http.Request) (*http.Response, error) {
	u, err := url.Parse(r.base)
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set("X-For", req.URL.Host)
	req.URL.Scheme, req.URL.Host = u.Scheme, u.Host
	return http.DefaultTransport.RoundTrip(req)
}

func TestTheHostRenewsTokensAndThePlaceholderStays(t *testing.T) {
	s, _ := newStore(t, nil)
	set(t, s, Entry{Name: "claude"}, claudeText, true)
	before, err := s.Get("claude")
	if err != nil {
		t.Fatal(err)
	}
	next := "sk-" + "ant-oat01-" + strings.Repeat("Nx5-", 30)
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = r.Header.Get("X-For") + string(body)
		if strings.Contains(asked, "second") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"refresh_token":"the-second-one","expires_in":3600}`, next)
	}))
	defer server.Close()
	client := Client(to{server.URL})
	at := time.UnixMilli(1800000000000)
	if renewed, failed := s.Renew(context.Background(), client, at.Add(-time.Hour)); renewed || len(failed) > 0 {
		t.Errorf("renewed too early: %v", failed)
	}
	renewed, failed := s.Renew(context.Background(), client, at.Add(-time.Minute))
	after, err := s.Get("claude")
	if !renewed || len(failed) > 0 || err != nil || after.Value != next || after.Token.Refresh != "the-second-one" || !strings.Contains(asked, claudeRefresh) {
		t.Fatalf("%v %v %v, asked %q", renewed, failed, err, asked)
	}
	if before.placeholders("f").value != after.placeholders("f").value {
		t.Error("the placeholder has changed")
	}
	if _, failed := s.Renew(context.Background(), client, at.Add(2*time.Hour)); failed["claude"] == nil || strings.Contains(failed["claude"].Error(), "second") {
		t.Errorf("a refusal: %v", failed)
	}
}

func TestASecretIsTriedAtItsProvider(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-For") != "api.github.com" || r.Header.Get("Authorization") != "Bearer "+githubKey {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	for _, e := range entries(t) {
		got, err := e.Test(context.Background(), Client(to{server.URL}))
		if err != nil || got.Good != (e.Name == "github" || e.Name == "db") || strings.Contains(got.Detail, e.Value) {
			t.Errorf("%s: %+v, %v", e.Name, got, err)
		}
	}
	server.Close()
	for _, e := range entries(t) {
		if _, err := e.Test(context.Background(), Client(to{server.URL})); err != nil && strings.Contains(err.Error(), e.Value) {
			t.Errorf("%s: the error quotes it", e.Name)
		}
	}
}
