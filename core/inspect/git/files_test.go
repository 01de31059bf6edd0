package git

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// docs are rules by which agents change documents only.
const docs = open + `
[[git]]
id = "team/docs"
effect = "allow"
hosts = ["git.test"]
ops = ["push"]
refs = ["refs/heads/agent/**"]
kinds = ["create", "update"]
paths = ["docs/**"]
[[git]]
id = "team/other"
effect = "deny"
reason = "agents change docs/ only"
hosts = ["git.test"]
ops = ["push"]
`

// write makes files in the client's copy and commits them; an empty text removes one.
func (g *rig) write(files map[string]string) {
	g.t.Helper()
	for name, text := range files {
		path := filepath.Join(g.work, name)
		if text == "" {
			if err := os.RemoveAll(path); err != nil {
				g.t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			g.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			g.t.Fatal(err)
		}
	}
	g.git(g.work, "add", "-A")
	g.git(g.work, "commit", "-qm", "change")
}

// many is a tree of many files, whose trees git sends as differences.
func many(with map[string]string) map[string]string {
	out := map[string]string{}
	for _, dir := range []string{"docs/", "src/", "docs/deep/er/"} {
		for _, c := range "abcdefghijklmnopqrstuvwxyz" {
			out[dir+"file-with-a-long-name-"+string(c)] = dir + string(c) + strings.Repeat(" text", 20)
		}
	}
	maps.Copy(out, with)
	return out
}

// docsRig has a branch agent/x on the server that was made before there were rules.
func docsRig(t *testing.T, filter bool) *rig {
	t.Helper()
	g := newRig(t, docs, filter)
	if filter { // else it cannot leave files out
		g.git(g.bare, "config", "uploadpack.allowFilter", "true")
	}
	g.clone()
	g.git(g.work, "checkout", "-qb", "agent/x")
	g.write(many(nil))
	g.write(map[string]string{"src/main": "changed"})
	g.write(map[string]string{"src/main": "changed again", "docs/index": "hello"})
	g.git(g.work, "push", "-q", g.bare, "agent/x")
	return g
}

// another gives another client, on a branch of its own that is as agent/x.
func (g *rig) another(t *testing.T, branch string) *rig {
	t.Helper()
	o := &rig{t: t, url: g.url, bare: g.bare, work: filepath.Join(t.TempDir(), "work"), env: g.env}
	o.git(".", "-C", g.bare, "branch", branch, "agent/x")
	o.git(".", "clone", "-q", "-b", branch, g.bare, o.work)
	o.git(o.work, "remote", "set-url", "origin", g.url)
	return o
}

// propose has the client stand on a commit that somebody has put on the server without a branch, as a proposal is, from HEAD of main.
func (g *rig) propose() {
	g.t.Helper()
	g.git(g.work, "fetch", "-q", g.bare, "main")
	g.git(g.work, "checkout", "-q", "FETCH_HEAD")
	g.write(map[string]string{"src/proposed": "evil"})
	g.git(g.work, "push", "-q", g.bare, "HEAD:refs/pull/1/head", "--force")
}

// pathCase is something that a client does, and whether it may push that.
type pathCase struct {
	change func(g *rig)
	// refused is what the refusal says; empty is a push that passes. to is the branch, if it is not the client's own.
	refused string
	to      string
}

var pathCases = map[string]pathCase{
	"a document":   {change: func(g *rig) { g.write(map[string]string{"docs/index": "more"}) }},
	"deep, many":   {change: func(g *rig) { g.write(map[string]string{"docs/deep/er/new": "x", "docs/file-with-a-long-name-c": "y"}) }},
	"one of each":  {change: func(g *rig) { g.write(map[string]string{"docs/index": "more", "src/x": "y"}) }, refused: `"src/x"`},
	"code":         {change: func(g *rig) { g.write(map[string]string{"src/main": "evil"}) }, refused: `"src/main"`},
	"a deletion":   {change: func(g *rig) { g.write(map[string]string{"src/main": ""}) }, refused: `"src/main"`},
	"a directory":  {change: func(g *rig) { g.write(map[string]string{"src": ""}) }, refused: `"src/`},
	"moved out":    {change: func(g *rig) { g.git(g.work, "mv", "src/main", "docs/main"); g.write(nil) }, refused: `"src/main"`},
	"moved within": {change: func(g *rig) { g.git(g.work, "mv", "docs/index", "docs/start"); g.write(nil) }},
	"put back to what it was": {change: func(g *rig) {
		g.git(g.work, "checkout", "HEAD~1", "--", "src/main")
		g.write(nil)
	}, refused: `"src/main"`},
	"a revert": {change: func(g *rig) {
		g.git(g.work, "revert", "--no-edit", "HEAD")
	}, refused: `"src/main"`},
	"in the middle, and undone": {change: func(g *rig) {
		g.write(map[string]string{"src/main": "evil", "docs/a": "a"})
		g.git(g.work, "checkout", "HEAD~1", "--", "src/main")
		g.write(map[string]string{"docs/b": "b"})
	}, refused: `"src/main"`},
	"an executable bit": {change: func(g *rig) {
		g.git(g.work, "update-index", "--chmod=+x", "src/main")
		g.git(g.work, "commit", "-qm", "x")
	}, refused: `"src/main"`},
	"a link in place of a directory": {change: func(g *rig) {
		g.write(map[string]string{"src": ""})
		if err := os.Symlink("docs", filepath.Join(g.work, "src")); err != nil {
			g.t.Fatal(err)
		}
		g.git(g.work, "add", "-A")
		g.git(g.work, "commit", "--amend", "-qm", "x")
	}, refused: `"src"`},
	"a link below the path": {change: func(g *rig) {
		if err := os.Symlink("../src/main", filepath.Join(g.work, "docs/link")); err != nil {
			g.t.Fatal(err)
		}
		g.write(nil)
	}},
	"a submodule": {change: func(g *rig) {
		g.git(g.work, "update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+",src/module")
		g.git(g.work, "commit", "-qm", "x")
	}, refused: `"src/module"`},
	"the root":                       {change: func(g *rig) { g.write(map[string]string{".gitmodules": "x"}) }, refused: `".gitmodules"`},
	"a new branch with a document":   {change: func(g *rig) { g.write(map[string]string{"docs/n": "n"}) }, to: "agent/new1"},
	"a new branch with code":         {change: func(g *rig) { g.write(map[string]string{"src/n": "n"}) }, to: "agent/new2", refused: `"src/n"`},
	"a new branch of what is there":  {change: func(*rig) {}, to: "agent/new3"},
	"a new branch of what was there": {change: func(g *rig) { g.git(g.work, "reset", "-q", "--hard", "HEAD~1") }, to: "agent/new6"},
	"a new branch on what was there": {change: func(g *rig) {
		g.git(g.work, "reset", "-q", "--hard", "HEAD~2")
		g.write(map[string]string{"docs/n": "n"})
	}, to: "agent/new7"},
	"a new branch of what is on none": {change: func(g *rig) { g.propose() }, to: "agent/new8", refused: `"src/proposed"`},
	"a new branch on what is on none": {change: func(g *rig) {
		g.propose()
		g.write(map[string]string{"docs/n": "n"})
	}, to: "agent/new9", refused: `"src/proposed"`},
	"a history of its own": {change: func(g *rig) {
		g.git(g.work, "checkout", "-q", "--orphan", "alone")
		g.write(map[string]string{"src": "", "file": ""})
	}, to: "agent/new4"},
	"a history of its own with code": {change: func(g *rig) { g.git(g.work, "checkout", "-q", "--orphan", "alone"); g.write(nil) }, to: "agent/new5", refused: `"file"`},
	"a merge of two with documents": {change: func(g *rig) {
		g.git(g.work, "checkout", "-qb", "side")
		g.write(map[string]string{"docs/side": "s"})
		g.git(g.work, "checkout", "-q", "-")
		g.write(map[string]string{"docs/main": "m"})
		g.git(g.work, "merge", "-q", "--no-ff", "--no-edit", "side")
	}},
	"a merge that brings in what is elsewhere": {change: func(g *rig) {
		other := filepath.Join(filepath.Dir(g.work), "other")
		g.git(".", "clone", "-q", g.bare, other)
		if err := os.WriteFile(filepath.Join(other, "code"), []byte("x"), 0o600); err != nil {
			g.t.Fatal(err)
		}
		g.git(other, "add", "-A")
		g.git(other, "commit", "-qm", "code")
		g.git(other, "push", "-q", "origin", "HEAD:main")
		g.git(g.work, "fetch", "-q", g.bare, "main:refs/remotes/origin/main")
		g.git(g.work, "merge", "-q", "--no-edit", "origin/main")
	}, refused: `"code"`},
	"a merge that changes more": {change: func(g *rig) {
		g.git(g.work, "checkout", "-qb", "side")
		g.write(map[string]string{"docs/side": "s"})
		g.git(g.work, "checkout", "-q", "-")
		g.git(g.work, "merge", "-q", "--no-ff", "--no-commit", "side")
		g.write(map[string]string{"src/main": "evil"})
	}, refused: `"src/main"`},
}

func TestPushesAreHeldToPaths(t *testing.T) {
	servers := []*rig{docsRig(t, false), docsRig(t, true)}
	n := 0
	for name, c := range pathCases {
		t.Run(name, func(t *testing.T) {
			n++
			to := fmt.Sprintf("agent/n%d", n)
			g := servers[n%2].another(t, to)
			c.change(g)
			if c.to != "" {
				to = c.to
			}
			was := g.at(to)
			out, err := g.try(g.work, "push", "origin", "HEAD:refs/heads/"+to)
			switch {
			case c.refused == "" && (err != nil || g.at(to) != g.git(g.work, "rev-parse", "HEAD")):
				t.Errorf("%v\n%s", err, out)
			case c.refused != "" && (err == nil || g.at(to) != was || !strings.Contains(out, "capsem: team/other: agents change docs/ only (this push changes "+c.refused)):
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestWhatCannotBeToldIsRefused(t *testing.T) {
	g := docsRig(t, false)
	g.write(map[string]string{"docs/index": "more"})
	g.git(g.work, "tag", "-a", "-m", "x", "v1")
	for what, args := range map[string][]string{
		"a tag that is an object": {"v1:refs/heads/agent/tag"},
		"a force":                 {"--force", "HEAD~2:refs/heads/agent/x"},
		"a deletion":              {":refs/heads/agent/x"},
	} {
		if out, err := g.try(g.work, append([]string{"push", "origin"}, args...)...); err == nil || !strings.Contains(out, "capsem: team/other") && !strings.Contains(out, "refs/heads/agent/tag") {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
	}
	// A server that gives nothing of what is there, and one whose answer is too long.
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
	if out, err := g.try(g.work, "push", "origin", "HEAD:refs/heads/agent/x"); err == nil || !strings.Contains(out, "cannot be told which paths this push changes") {
		t.Errorf("%v\n%s", err, out)
	}
}
