package credential

import (
	"maps"
	"slices"
)

// Generic is the kind of what capsem knows nothing about. ForServers is what only the owner's MCP servers on the host get: no VM has a
// placeholder of it.
const Generic, ForServers = "generic", "mcp"

// kind is what is known of the credentials of one provider.
type kind struct {
	// prefixes are how its keys begin, the longest first; a placeholder begins the same.
	prefixes []string
	// hosts are where its keys go, oauthHosts where the tokens of a sign-in do.
	hosts, oauthHosts []string
	places            []Place
	env               []string
	// preset opens the provider in the default policy, once the owner has stored a credential.
	preset string
	// probe is what "capsem secret test" asks for, probeOAuth with a token of a sign-in.
	probe, probeOAuth probe
}

// probe is a request that only a good credential gets an answer to.
type probe struct {
	url string
	// header carries the value behind before.
	header, before string
	// more are further headers.
	more map[string]string
}

var bearer = Place{In: "header", Name: "authorization"}

// kinds are those that are ready-made.
var kinds = map[string]kind{
	"anthropic": {
		prefixes:   []string{"sk-ant-api03-", "sk-ant-admin01-", "sk-ant-oat01-", "sk-ant-ort01-", "sk-ant-"},
		hosts:      []string{"api.anthropic.com"},
		oauthHosts: []string{"api.anthropic.com"},
		places:     []Place{{In: "header", Name: "x-api-key"}, bearer},
		env:        []string{"ANTHROPIC_API_KEY"}, preset: "claude",
		probe: probe{
			url: "https://api.anthropic.com/v1/models?limit=1", header: "x-api-key", more: map[string]string{"anthropic-version": "2023-06-01"},
		},
		probeOAuth: probe{
			url: "https://api.anthropic.com/v1/models?limit=1", header: "Authorization", before: "Bearer ",
			more: map[string]string{"anthropic-version": "2023-06-01", "anthropic-beta": "oauth-2025-04-20"},
		},
	},
	"openai": {
		prefixes:   []string{"sk-svcacct-", "sk-admin-", "sk-proj-", "sk-"},
		hosts:      []string{"api.openai.com", "chatgpt.com"},                  // Codex asks the second for the models, with a key too
		oauthHosts: []string{"api.openai.com", "chatgpt.com", "*.chatgpt.com"}, // workspaces of some regions have a host of their own
		places:     []Place{bearer}, env: []string{"OPENAI_API_KEY"}, preset: "codex",
		probe:      probe{url: "https://api.openai.com/v1/models", header: "Authorization", before: "Bearer "},
		probeOAuth: probe{url: "https://chatgpt.com/backend-api/wham/usage", header: "Authorization", before: "Bearer "},
	},
	"google": {
		prefixes:   []string{"AIza", "AQ.", "ya29."},
		hosts:      []string{"generativelanguage.googleapis.com", "aiplatform.googleapis.com"},
		oauthHosts: []string{"cloudcode-pa.googleapis.com", "oauth2.googleapis.com", "www.googleapis.com", "aiplatform.googleapis.com"},
		places:     []Place{{In: "header", Name: "x-goog-api-key"}, bearer, {In: "query", Name: "key"}},
		// Not GOOGLE_API_KEY as well: the CLI warns when both are set.
		env: []string{"GEMINI_API_KEY"}, preset: "gemini",
		probe:      probe{url: "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1", header: "x-goog-api-key"},
		probeOAuth: probe{url: "https://www.googleapis.com/oauth2/v2/userinfo", header: "Authorization", before: "Bearer "},
	},
	"github": {
		prefixes: []string{"github_pat_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"},
		hosts:    []string{"github.com", "api.github.com", "uploads.github.com", "gist.github.com", "raw.githubusercontent.com"},
		places:   []Place{bearer, {In: "basic"}}, env: []string{"GH_TOKEN", "GITHUB_TOKEN"}, preset: "github",
		probe: probe{url: "https://api.github.com/user", header: "Authorization", before: "Bearer "},
	},
	"gitlab": {
		prefixes: []string{"glpat-", "gldt-", "glrt-", "gloas-"},
		hosts:    []string{"gitlab.com"},
		places:   []Place{{In: "header", Name: "private-token"}, bearer, {In: "basic"}}, env: []string{"GITLAB_TOKEN"},
		probe: probe{url: "https://gitlab.com/api/v4/user", header: "PRIVATE-TOKEN"},
	},
	ForServers: {},
	Generic:    {places: []Place{{In: "header"}, {In: "basic"}}},
}

// Kinds lists the kinds of credentials.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// AcceptedPresets are the presets of the policy that the stored credentials open: who has stored one wants to use it.
func AcceptedPresets(entries []Entry) []string {
	var out []string
	for _, e := range entries {
		if p := kinds[e.Kind].preset; p != "" && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}
