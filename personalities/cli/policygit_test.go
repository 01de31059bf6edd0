package cli

import (
	"os"
	"strings"
	"testing"
)

func TestGitRulesCanBeAsked(t *testing.T) {
	f := newService(t)
	if err := os.WriteFile(f.home.UserPolicy(), []byte("presets = [\"git-agent\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"push github.com/a/b.git refs/heads/agent/x update": "allow by git-agent/branches (user)",
		"push https://GitHub.com/a/b refs/heads/agent/x":    "allow by git-agent/branches",
		"push github.com/a/b refs/heads/agent/x force":      "deny by git-agent/other (user), only branches below agent/",
		"push github.com/a/b refs/heads/main":               "deny by git-agent/other",
		"clone github.com/a/b":                              "no git rule speaks of this",
	} {
		if r := f.capsem(nil, append([]string{"policy", "check", "GIT"}, strings.Fields(line)...)...); r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("%s: %+v", line, r)
		}
	}
	for _, line := range []string{"pull github.com/a/b", "push github.com", "push github.com/a/b main", "fetch github.com/a/b refs/heads/x", "push github.com/a/b refs/heads/x rewrite"} {
		if r := f.capsem(nil, append([]string{"policy", "check", "GIT"}, strings.Fields(line)...)...); r.code == 0 || !strings.Contains(r.stderr, "such as") {
			t.Errorf("%s: %+v", line, r)
		}
	}
}
