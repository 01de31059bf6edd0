package policy

import (
	"strings"
	"testing"
)

func gitVerdict(p *Policy, line string) string {
	// "push host/repo ref kind pack"
	f := strings.Fields(line)
	host, repo, _ := strings.Cut(f[1], "/")
	req := &GitRequest{Host: host, Repo: repo, Ops: strings.Split(f[0], "|")}
	if len(f) > 2 {
		req.Ref, req.Kind = f[2], f[3]
	}
	if len(f) > 4 {
		req.Pack = 1 << 30
	}
	v := p.Git(req)
	return v.Effect.String() + ":" + v.RuleID
}

func TestGitRulesDecideByRepositoryBranchAndKind(t *testing.T) {
	p := compiledFrom(t, "user", `presets = ["git-agent"]
[[git]]
id = "read"
effect = "allow"
hosts = ["git.test"]
repos = ["team/*"]
ops = ["fetch"]
[[git]]
id = "no-secret"
effect = "deny"
reason = "kept"
hosts = ["git.test"]
repos = ["team/secret"]
`)
	for line, want := range map[string]string{
		"push github.com/a/b refs/heads/agent/x create":     "allow:git-agent/branches",
		"push github.com/a/b refs/heads/agent/x/y update":   "allow:git-agent/branches",
		"push github.com/a/b refs/heads/agent/x update big": "deny:git-agent/other",
		"push github.com/a/b refs/heads/agent/x force":      "deny:git-agent/other",
		"push github.com/a/b refs/heads/agent/x delete":     "deny:git-agent/other",
		"push github.com/a/b refs/heads/agent create":       "deny:git-agent/other",
		"push github.com/a/b refs/heads/agentx/y create":    "deny:git-agent/other",
		"push github.com/a/b refs/heads/Agent/x create":     "deny:git-agent/other",
		"push github.com/a/b refs/heads/main update":        "deny:git-agent/other",
		"push github.com/a/b refs/tags/agent/x create":      "deny:git-agent/other",
		"push github.com/a/b":                               "allow:git-agent/branches", // the branch is still to come
		"clone|fetch github.com/a/b":                        "allow:",
		"push other.test/a refs/heads/main force":           "allow:",
		"fetch git.test/team/x":                             "allow:read",
		"clone git.test/team/x":                             "deny:capsem:git",
		"clone|fetch git.test/team/x":                       "allow:read", // it may be a fetch
		"fetch git.test/other/x":                            "deny:capsem:git",
		"clone git.test/team/SECRET":                        "deny:no-secret",
	} {
		if got := gitVerdict(p, line); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

func TestGitRulesKeepTheLayers(t *testing.T) {
	tags := "[[git]]\nid = \"tags\"\neffect = \"deny\"\nreason = \"no\"\nkinds = [\"tag\"]\n"
	open := "[[git]]\nid = \"open\"\neffect = \"allow\"\nops = [\"push\"]\n"
	agent := "[[git]]\nid = \"agent\"\neffect = \"allow\"\nrefs = [\"refs/heads/agent/**\"]\n"
	for _, c := range []struct{ line, want string }{
		{"push h.test/a refs/tags/v1 create", "deny:tags"},
		{"push h.test/a refs/heads/agent/x force", "allow:open"},
		{"push h.test/a refs/heads/main update", "deny:capsem:git"}, // the VM's own rules narrow
	} {
		if got := gitVerdict(compiledFrom(t, "vm", agent, "user", open, "corp", tags), c.line); got != c.want {
			t.Errorf("%s: %s, want %s", c.line, got, c.want)
		}
	}
}

func TestGitRulesThatMakeNoSenseAreRefused(t *testing.T) {
	for text, says := range map[string]string{
		`ops = ["pull"]`:                         "not one of clone, fetch, push",
		`kinds = ["rewrite"]`:                    "not one of create",
		`repos = ["/a/b"]`:                       "slash in front",
		`repos = ["a/b.git"]`:                    ".git behind",
		`refs = ["main"]`:                        "never match",
		"ops = [\"fetch\"]\nrefs = [\"refs/*\"]": "about pushes",
		`max_pack = "many"`:                      "no size",
		`refs = []`:                              "empty list",
		`branch = "x"`:                           "unknown key",
	} {
		_, err := Parse("[[git]]\nid = \"x\"\neffect = \"allow\"\n"+text, LayerUser)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
	one := "[[git]]\nid = \"x\"\neffect = \"deny\"\nreason = \"r\"\n"
	if _, err := Parse(one+one, LayerUser); err == nil || !strings.Contains(err.Error(), "line 5") {
		t.Errorf("twice: %v", err)
	}
}

func TestLintSeesGitRulesThatAreNeverReached(t *testing.T) {
	p := compiledFrom(t, "user", "[[git]]\nid = \"all\"\neffect = \"deny\"\nops = [\"push\"]\n[[git]]\nid = \"late\"\neffect = \"allow\"\nrefs = [\"refs/heads/x\"]\n[[git]]\nid = \"any\"\neffect = \"allow\"\n")
	got := map[string]string{}
	for _, f := range Lint(p) {
		got[f.RuleID] += f.Code
	}
	if got["all"] != LintNoReason || got["late"] != LintShadowed || got["any"] != LintAllowAll {
		t.Errorf("%v", got)
	}
}

func TestGitRulesDecideByPaths(t *testing.T) {
	p := compiledFrom(t, "user", `
[[git]]
id = "no-keys"
effect = "deny"
reason = "kept"
paths = ["**/secret*"]
[[git]]
id = "docs"
effect = "allow"
ops = ["push"]
paths = ["docs/**", "README.md"]
[[git]]
id = "other"
effect = "ask"
ops = ["push"]
`)
	for _, c := range []struct {
		files GitFiles
		paths []string
		want  string
	}{
		{GitFilesLater, nil, "allow:docs"},
		{GitFilesUnknown, nil, "deny:no-keys"},
		{GitFilesKnown, nil, "allow:docs"},
		{GitFilesKnown, []string{"docs/a", "README.md", "docs/b/c"}, "allow:docs"},
		{GitFilesKnown, []string{"docs/a", "readme.md"}, "ask:other"},
		{GitFilesKnown, []string{"docs/a", "docsx/a"}, "ask:other"},
		{GitFilesKnown, []string{"Docs/a"}, "ask:other"},
		{GitFilesKnown, []string{"docs/a", "docs/SECRET.txt"}, "deny:no-keys"},
	} {
		req := &GitRequest{Host: "h", Repo: "r", Ops: []string{GitPush}, Ref: "refs/heads/x", Kind: GitUpdate, Files: c.files, Paths: c.paths}
		v := p.Git(req)
		if got := v.Effect.String() + ":" + v.RuleID; got != c.want {
			t.Errorf("%v %q: %s, want %s", c.files, c.paths, got, c.want)
		}
		if !p.GitNeedsFiles(req) && c.files == GitFilesLater {
			t.Error("the paths are of no interest")
		}
	}
	for _, bad := range []string{`paths = ["/docs"]`, `paths = ["docs/"]`, `paths = []`, "paths = [\"docs\"]\nops = [\"fetch\"]"} {
		if _, err := Parse("[[git]]\nid = \"x\"\neffect = \"deny\"\nreason = \"r\"\n"+bad+"\n", LayerUser); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
