package credential

import (
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"capsem/core/fault"
	"capsem/core/proto"
)

// Prepare gives the variables and files by which the command lines of the providers find their credentials in a guest, with
// placeholders in them. It is a pure function of the entries and the VM's family. Of what two entries want to be, the first one's is taken; what
// would be more than a VM takes is left out.
func Prepare(entries []Entry, family string) (env map[string]string, files []proto.GrantFile) {
	env = map[string]string{}
	var git string
	var codexKey []proto.GrantFile
	left := maxVariables
	for i := range entries {
		e := &entries[i]
		p := e.placeholders(family)
		for _, name := range e.Env {
			if _, taken := env[name]; !taken && variable(name, p.value) <= left {
				env[name] = p.value
				left -= variable(name, p.value)
			}
		}
		switch e.Form {
		case OAuth:
			files = add(files, signInFiles(e, p)...)
		case Key, Basic:
			for _, line := range gitLines(e, p.value) {
				if len(git)+len(line) < proto.MaxGrantFile {
					git += line + "\n"
				}
			}
		}
		if e.Kind == "anthropic" {
			files = add(files, claudeSettings(e, p)...)
		}
		if e.Kind == "google" && e.Form == Key {
			files = add(files, geminiSettings("gemini-api-key"))
		}
		if e.Kind == "openai" && e.Form == Key && codexKey == nil {
			codexKey = []proto.GrantFile{asJSON(codexPath, codexFile{Mode: "apikey", Key: &p.value}, false)}
		}
	}
	files = add(files, codexKey...) // behind a sign-in
	if git != "" {
		files = add(files,
			proto.GrantFile{Path: ".git-credentials", Text: git},
			proto.GrantFile{Path: ".gitconfig", Text: "[credential]\n\thelper = store\n", Keep: true})
	}
	return env, files
}

// maxVariables is how many bytes the variables of all secrets together have: each command in a VM is sent with them.
const maxVariables = 32 << 10

// variable is how many of them one takes.
func variable(name, value string) int { return len(name) + len(value) + 8 }

// checkVariables says whether all variables fit.
func checkVariables(entries []Entry) error {
	n, seen := 0, map[string]bool{}
	for i := range entries {
		for _, name := range entries[i].Env {
			if !seen[name] {
				seen[name] = true
				n += variable(name, entries[i].Value)
			}
		}
	}
	if n > maxVariables {
		return fault.New(fault.LimitReached, "the variables of all secrets would have %d bytes together, more than %d", n, maxVariables).
			WithHint("give fewer secrets variables (--env), or remove one that is not used: capsem secret rm")
	}
	return nil
}

// add appends files whose names are not there yet.
func add(files []proto.GrantFile, more ...proto.GrantFile) []proto.GrantFile {
next:
	for _, m := range more {
		if len(m.Text) > proto.MaxGrantFile {
			continue
		}
		for _, f := range files {
			if f.Path == m.Path {
				continue next
			}
		}
		files = append(files, m)
	}
	return files
}

// codexPath is where Codex has its credentials. It does not look at OPENAI_API_KEY.
const codexPath = ".codex/auth.json"

// signInFiles are the file of a sign-in, as its command line writes it.
func signInFiles(e *Entry, p placeholders) []proto.GrantFile {
	t := e.Token
	switch t.Client {
	case clientClaude:
		return []proto.GrantFile{asJSON(".claude/.credentials.json", claudeFile{OAuth: &claudeOAuth{
			Access: p.value, Refresh: p.refresh, Expires: farFuture * 1000, Scopes: t.Scopes, Plan: t.Plan, Tier: t.Tier,
		}}, false)}
	case clientCodex:
		return []proto.GrantFile{asJSON(codexPath, codexFile{
			Mode: "chatgpt", Tokens: &codexTokens{Identity: p.identity, Access: p.value, Refresh: p.refresh, Account: t.Account},
			// It renews what was last renewed long ago; the host does that.
			LastRefresh: time.Unix(farFuture, 0).UTC().Format(time.RFC3339),
		}, false)}
	case clientGemini:
		return []proto.GrantFile{
			asJSON(".gemini/oauth_creds.json", geminiFile{
				Access: p.value, Refresh: p.refresh, Scope: strings.Join(t.Scopes, " "), Type: "Bearer", Identity: p.identity, Expires: farFuture * 1000,
			}, false),
			geminiSettings("oauth-personal"),
		}
	}
	return nil
}

// claudeSettings keep Claude Code from asking on its first start what has been decided.
func claudeSettings(e *Entry, p placeholders) []proto.GrantFile {
	state := map[string]any{
		"hasCompletedOnboarding": true,
		"projects":               map[string]any{"/root": map[string]any{"hasTrustDialogAccepted": true}},
	}
	if e.Form == Key { // it knows a key that was agreed to by its last letters
		state["customApiKeyResponses"] = map[string]any{"approved": []string{p.value[max(0, len(p.value)-20):]}, "rejected": []string{}}
	}
	return []proto.GrantFile{asJSON(".claude.json", state, true)}
}

func geminiSettings(how string) proto.GrantFile {
	return asJSON(".gemini/settings.json", map[string]any{"security": map[string]any{"auth": map[string]any{"selectedType": how}}}, true)
}

// gitLines are lines for git's own store, one for each host by name.
func gitLines(e *Entry, value string) []string {
	user := e.User
	switch e.Kind {
	case "github":
		user = "x-access-token"
	case "gitlab":
		user = "oauth2"
	}
	if user == "" || strings.ContainsAny(user, "/@") {
		return nil
	}
	var out []string
	for _, h := range e.Hosts {
		if !strings.HasPrefix(h, "*") && (e.Kind == Generic || h == "github.com" || h == "gist.github.com" || e.Kind == "gitlab") {
			u := url.URL{Scheme: "https", User: url.UserPassword(user, value), Host: h}
			out = append(out, u.String())
		}
	}
	return out
}

// asJSON makes a file; merge is of settings that are the guest's too.
func asJSON(path string, v any, merge bool) proto.GrantFile {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // types of ours
	}
	return proto.GrantFile{Path: path, Text: string(text) + "\n", Merge: merge}
}
