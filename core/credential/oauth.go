package credential

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"capsem/core/fault"
)

// Token is what there is of a sign-in besides the token in use.
type Token struct {
	// Client is whose file it came from: claude, codex or gemini, or mcp for a sign-in to an MCP server.
	Client string `json:"client"`
	// Refresh gets the next token; it never leaves the host. Empty means that there is no next one.
	Refresh string `json:"refresh,omitempty"`
	// Expires is when the one in use does; zero is not known.
	Expires time.Time `json:"expires,omitzero"`
	// ClientID and ClientSecret are the program's that signed in, where its file says so.
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
	// Server is the URL of the MCP server that it is for, Resource what that calls itself; URL is where the next token is got, and Basic says
	// that the client's own secret goes into a header there.
	Server   string `json:"server,omitempty"`
	Resource string `json:"resource,omitempty"`
	URL      string `json:"url,omitempty"`
	Basic    bool   `json:"basic,omitempty"`
	// Identity is a token that only says who signed in.
	Identity string `json:"identity,omitempty"`
	// Account, Plan, Tier and Scopes are what the command line wants to see in its file.
	Account string   `json:"account,omitempty"`
	Plan    string   `json:"plan,omitempty"`
	Tier    string   `json:"tier,omitempty"`
	Scopes  []string `json:"scopes,omitempty"`
}

// The command lines whose files are known.
const (
	clientClaude = "claude"
	clientCodex  = "codex"
	clientGemini = "gemini"
)

// ClientServer is the client of a sign-in to an MCP server, which capsem does itself.
const ClientServer = "mcp"

// claudeFile is ~/.claude/.credentials.json.
type claudeFile struct {
	OAuth *claudeOAuth `json:"claudeAiOauth"`
}

type claudeOAuth struct {
	Access  string   `json:"accessToken"`
	Refresh string   `json:"refreshToken"`
	Expires int64    `json:"expiresAt"` // milliseconds
	Scopes  []string `json:"scopes"`
	Plan    string   `json:"subscriptionType,omitempty"`
	Tier    string   `json:"rateLimitTier,omitempty"`
}

// codexFile is ~/.codex/auth.json.
type codexFile struct {
	Mode        string       `json:"auth_mode,omitempty"`
	Key         *string      `json:"OPENAI_API_KEY"`
	Tokens      *codexTokens `json:"tokens,omitempty"`
	LastRefresh string       `json:"last_refresh,omitempty"`
}

type codexTokens struct {
	Identity string `json:"id_token"`
	Access   string `json:"access_token"`
	Refresh  string `json:"refresh_token"`
	Account  string `json:"account_id,omitempty"`
}

// geminiFile is ~/.gemini/oauth_creds.json, and gcloud's application_default_credentials.json.
type geminiFile struct {
	Access       string `json:"access_token,omitempty"`
	Refresh      string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope,omitempty"`
	Type         string `json:"token_type,omitempty"`
	Identity     string `json:"id_token,omitempty"`
	Expires      int64  `json:"expiry_date,omitempty"` // milliseconds
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
}

// parseSignIn reads the file in which a command line keeps its sign-in, and says of which kind it is.
func parseSignIn(text string) (kind string, access string, t *Token, err error) {
	unknown := fault.New(fault.Invalid, "this is not the file of a sign-in of Claude, Codex or Gemini").
		WithHint("give ~/.claude/.credentials.json, ~/.codex/auth.json or ~/.gemini/oauth_creds.json")
	var c claudeFile
	if json.Unmarshal([]byte(text), &c) == nil && c.OAuth != nil {
		o := c.OAuth
		return "anthropic", o.Access, &Token{Client: clientClaude, Refresh: o.Refresh, Expires: millis(o.Expires), Scopes: o.Scopes, Plan: o.Plan, Tier: o.Tier}, nil
	}
	var x codexFile
	if json.Unmarshal([]byte(text), &x) == nil && x.Tokens != nil {
		t := x.Tokens
		return "openai", t.Access, &Token{Client: clientCodex, Refresh: t.Refresh, Expires: jwtExpiry(t.Access), Identity: t.Identity, Account: t.Account}, nil
	}
	var g geminiFile
	if json.Unmarshal([]byte(text), &g) == nil && (g.Access != "" || g.Refresh != "") {
		t := &Token{
			Client: clientGemini, Refresh: g.Refresh, Expires: millis(g.Expires), Identity: g.Identity, Scopes: strings.Fields(g.Scope),
			ClientID: g.ClientID, ClientSecret: g.ClientSecret,
		}
		if g.Access == "" {
			return "", "", nil, fault.New(fault.Invalid, "the file has no token that is in use").WithHint("use the CLI once, and give its file again")
		}
		return "google", g.Access, t, nil
	}
	return "", "", nil, unknown
}

// NewEntry makes an entry of what a user gives. A text that is the file of a sign-in becomes one; kind may be empty for those.
func NewEntry(e Entry, value string, signIn bool) (Entry, error) {
	value = strings.TrimRight(value, "\r\n")
	if !signIn {
		e.Value, e.Form = value, Key
		if e.User != "" {
			e.Form = Basic
		}
		if e.Kind == "" {
			e.Kind = guessKind(value)
		}
		err := e.Complete()
		return e, err
	}
	kind, access, token, err := parseSignIn(value)
	if err != nil {
		return e, err
	}
	if e.Kind != "" && e.Kind != kind {
		return e, fault.New(fault.Invalid, "the file is of a sign-in with %s, not %s", kind, e.Kind)
	}
	e.Kind, e.Form, e.Value, e.Token = kind, OAuth, access, token
	err = e.Complete()
	return e, err
}

// guessKind finds whose key a value is by how it begins.
func guessKind(value string) string {
	best, length := Generic, 0
	for name, k := range kinds {
		for _, p := range k.prefixes {
			if strings.HasPrefix(value, p) && len(p) > length {
				best, length = name, len(p)
			}
		}
	}
	return best
}

func millis(ms int64) time.Time {
	if ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// jwtExpiry is when a JSON web token ends, by its own words.
func jwtExpiry(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expires int64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(raw, &claims) != nil || claims.Expires <= 0 {
		return time.Time{}
	}
	return time.Unix(claims.Expires, 0).UTC()
}
