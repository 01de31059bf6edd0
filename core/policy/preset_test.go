package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestPresetsCompileAndLintClean(t *testing.T) {
	want := []string{"claude", "codex", "debian", "gemini", "git-agent", "github", "high", "medium", "npm", "pypi", "web-read"}
	if got := Presets(); !slices.Equal(got, want) {
		t.Fatalf("%v", got)
	}
	for _, name := range Presets() {
		p := compiledFrom(t, "user", `presets = ["`+name+`"]`)
		for _, f := range Lint(p) {
			t.Errorf("%s: %s", name, f)
		}
		for _, c := range p.base.rules {
			if !strings.HasPrefix(c.rule.ID, name+"/") {
				t.Errorf("%s: id %s", name, c.rule.ID)
			}
		}
		if len(p.base.rules) == 0 {
			t.Errorf("%s is empty", name)
		}
	}
	all := "presets = [\"" + strings.Join(want, "\", \"") + "\"]"
	if _, err := Compile(mustParse(t, all)); err != nil {
		t.Errorf("all together: %v", err)
	}
}

func mustParse(t testing.TB, text string) *Set {
	t.Helper()
	s, err := Parse(text, LayerDefaults)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPresetsDoWhatTheySay(t *testing.T) {
	// {npm} stands for a name that the vendor's wildcard in that preset covers.
	for _, c := range []struct{ preset, request, want string }{
		{"claude", "POST https://api.anthropic.com/v1/messages", "allow"},
		{"claude", "GET https://claude.ai/oauth", "allow"},
		{"claude", "POST https://api.openai.com/v1/responses", "deny"},
		{"claude", "POST https://api.anthropic.com.evil.net/", "deny"},
		{"claude", "POST http://api.anthropic.com/v1/messages", "deny"},
		{"claude", "TCP api.anthropic.com:443", "deny"},
		{"codex", "POST https://api.openai.com/v1/responses", "allow"},
		{"codex", "GET wss://chatgpt.com/x", "allow"},
		{"codex", "GET https://api.anthropic.com/", "deny"},
		{"gemini", "POST https://generativelanguage.googleapis.com/v1beta/models/g:generateContent", "allow"},
		{"gemini", "POST https://oauth2.googleapis.com/token", "allow"},
		{"gemini", "PUT https://storage.googleapis.com/bucket/x", "deny"},
		{"git-agent", "GET https://github.com/a/b.git/info/refs?service=git-receive-pack", "allow"},
		{"git-agent", "GET https://github.com/a/b/info/refs?service=git-upload-pack", "allow"},
		{"git-agent", "POST https://github.com/a/b/git-receive-pack", "allow"}, // the git rules decide about the rest
		{"git-agent", "POST https://github.com/a/b/git-upload-pack", "allow"},
		{"git-agent", "POST https://github.com/a/b/pulls", "deny"},
		{"git-agent", "POST https://api.github.com/repos/a/b/git/refs", "deny"},
		{"github", "GET https://api.github.com/repos/a/b", "allow"},
		{"github", "GET https://raw.githubusercontent.com/a/b/main/f", "allow"},
		{"github", "GET https://github.com/a/b/info/refs?service=git-upload-pack", "allow"},
		{"github", "POST https://github.com/a/b.git/git-upload-pack", "allow"},
		{"github", "GET https://github.com/a/b/info/refs?service=git-receive-pack", "ask"},
		{"github", "GET https://github.com/a/b/info/refs?service=git-upload-pack&service=git-receive-pack", "ask"},
		{"github", "GET https://github.com/a/b/info/refs?Service=GIT-receive-pack", "ask"},
		{"github", "POST https://github.com/a/b.git/git-receive-pack", "ask"},
		{"github", "DELETE https://api.github.com/repos/a/b", "ask"},
		{"github", "GET https://github.io/", "deny"},
		{"npm", "GET https://{npm}/left-pad", "allow"},
		{"npm", "GET https://{npm}/@scope%2fpkg", "allow"},
		{"npm", "PUT https://{npm}/left-pad", "deny"},
		{"npm", "POST https://{npm}/-/npm/v1/security/advisories/bulk", "allow"},
		{"npm", "POST https://{npm}/-/v1/login", "deny"},
		{"pypi", "GET https://{pypi}/simple/requests/", "allow"},
		{"pypi", "POST https://{pypi}/legacy/", "deny"},
		{"debian", "GET http://{debian}/debian/dists/stable/InRelease", "allow"},
		{"debian", "POST http://{debian}/x", "deny"},
		{"web-read", "GET https://any.example/", "allow"},
		{"web-read", "HEAD http://any.example/", "allow"},
		{"web-read", "POST https://any.example/", "ask"},
		{"web-read", "GET wss://any.example/", "ask"},
		{"web-read", "TCP any.example:22", "deny"},
		{"web-read", "MCP gh write", "deny"},
		{"medium", "GET https://any.example/", "allow"},
		{"medium", "OPTIONS https://any.example/", "allow"},
		{"medium", "POST https://any.example/", "deny"},
		{"medium", "MCP gh write", "allow"},
		{"high", "GET https://any.example/", "deny"},
		{"high", "GET https://www.google.com/search?q=x", "allow"},
		{"high", "GET https://www.google.com/", "deny"},
		{"high", "MCP gh write", "ask"},
	} {
		s, err := Preset(c.preset, LayerUser)
		if err != nil {
			t.Fatal(err)
		}
		_, below := splitStars(string(append(slices.Clone(s.Rules[0].Hosts), "**.none")[0]))
		line := strings.NewReplacer("{"+c.preset+"}", "any."+below).Replace(c.request)
		p, err := Compile(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _ := strings.Cut(decided(t, p, line, nil), ":"); got != c.want {
			t.Errorf("%s: %s is %s, want %s", c.preset, line, got, c.want)
		}
	}
}

func TestLevelsArePresets(t *testing.T) {
	for _, l := range Levels {
		if _, err := PresetText(l); err != nil {
			t.Error(err)
		}
	}
	if _, err := PresetText("../rule"); err == nil {
		t.Error("a path is a preset")
	}
}
