package git

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"capsem/core/inspect/gitwire"
)

func TestCloneAndFetchPassInBothProtocols(t *testing.T) {
	for _, version := range []string{"0", "2"} {
		g := newRig(t, agents, version == "2")
		g.git(".", "config", "--global", "protocol.version", version)
		g.clone()
		g.git(g.bare, "branch", "more", "main")
		g.git(g.work, "fetch", "-q")
		if got := g.git(g.work, "rev-parse", "origin/more"); got != g.at("main") {
			t.Errorf("v%s: fetched %s", version, got)
		}
	}
}

func TestAPushGoesThroughToBranchesOfAgentsOnly(t *testing.T) {
	g := newRig(t, agents, false)
	g.clone()
	main := g.at("main")
	g.commit("agent/x", 1000)
	g.git(g.work, "push", "-q", "origin", "agent/x")
	g.commit("agent/x", 2000)
	g.git(g.work, "push", "-q", "origin", "agent/x") // an update, whose pack leads back
	if got := g.git(g.work, "rev-parse", "HEAD"); g.at("agent/x") != got {
		t.Fatalf("agent/x is at %s, not %s", g.at("agent/x"), got)
	}
	before := g.packs()
	for what, args := range map[string][]string{
		"a branch":              {"HEAD:main"},
		"a new branch":          {"HEAD:refs/heads/feature"},
		"a tag":                 {"HEAD:refs/tags/v1"},
		"a deletion":            {":agent/x"},
		"one of two":            {"HEAD:refs/heads/agent/y", "HEAD:main"},
		"a force":               {"--force", "HEAD~2:agent/x"},
		"one to what was there": {"--force", "HEAD~1:refs/heads/agent/x"},
	} {
		out, err := g.try(g.work, append([]string{"push", "origin"}, args...)...)
		if err == nil || !strings.Contains(out, "[remote rejected]") || !strings.Contains(out, "capsem: team/other: agents push to agent/ only") {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
	}
	if g.at("main") != main || g.at("agent/y") != "" || g.at("feature") != "" || g.at("v1") != "" || g.at("agent/x") != g.git(g.work, "rev-parse", "HEAD") {
		t.Error("something was changed")
	}
	if n := g.packs() - before; n > 2 { // the forced ones begin to be sent
		t.Errorf("%d pushes reached the server", n)
	}
	if out, _ := g.try(g.work, "push", "origin", "HEAD:refs/heads/agent/y", "HEAD:main"); !strings.Contains(out, "not pushed, since refs/heads/main is refused") {
		t.Errorf("the other ref does not say why:\n%s", out)
	}
}

func TestARewrittenBranchCountsAsForced(t *testing.T) {
	g := newRig(t, agents, true)
	g.clone()
	g.commit("agent/x", 100)
	g.git(g.work, "push", "-q", "origin", "agent/x")
	was := g.at("agent/x")
	g.git(g.work, "commit", "--amend", "-qm", "other")
	out, err := g.try(g.work, "push", "--force", "origin", "agent/x")
	if err == nil || !strings.Contains(out, "may be a forced push") || g.at("agent/x") != was {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAPackMayNotBeLargerThanTheRuleSays(t *testing.T) {
	for _, buffer := range []string{"104857600", "65536"} { // with a length, and in chunks
		g := newRig(t, agents, false)
		g.git(".", "config", "--global", "http.postBuffer", buffer)
		g.clone()
		g.commit("agent/small", 300_000)
		g.git(g.work, "push", "-q", "origin", "agent/small")
		g.commit("agent/big", 3_000_000)
		out, err := g.try(g.work, "push", "origin", "agent/big")
		if err == nil || !strings.Contains(out, "capsem: team/other") || g.at("agent/big") != "" {
			t.Errorf("postBuffer %s: %v\n%s", buffer, err, out)
		}
		g.commit("agent/small", 400_000)
		if out, err := g.try(g.work, "push", "origin", "agent/small~0:agent/small"); err == nil || !strings.Contains(out, "capsem:") {
			t.Errorf("the large commit goes along with a small one: %v\n%s", err, out)
		}
	}
}

func TestReadingIsRefusedInAFormThatGitShows(t *testing.T) {
	rules := open + "[[git]]\nid = \"shut\"\neffect = \"deny\"\nreason = \"not this one\"\nrepos = [\"team/*\"]\n"
	for _, version := range []string{"0", "2"} {
		g := newRig(t, rules, false)
		out, err := g.try(".", "-c", "protocol.version="+version, "clone", g.url, g.work)
		if err == nil || !strings.Contains(out, "remote error: capsem: shut: not this one") {
			t.Errorf("v%s: %v\n%s", version, err, out)
		}
	}
	// Where only fetching is refused, cloning is not.
	g := newRig(t, open+"[[git]]\nid = \"no-fetch\"\neffect = \"deny\"\nreason = \"once only\"\nops = [\"fetch\"]\n[[git]]\nid = \"clone\"\neffect = \"allow\"\nops = [\"clone\"]\n", false)
	for _, version := range []string{"0", "2"} {
		g.work += version
		g.clone()
		g.git(g.bare, "commit-tree", "-m", "x", "main^{tree}", "-p", "main")
		g.git(g.bare, "update-ref", "refs/heads/new"+version, g.git(g.bare, "commit-tree", "-m", "x"+version, "main^{tree}", "-p", "main"))
		out, err := g.try(g.work, "-c", "protocol.version="+version, "fetch")
		if err == nil || !strings.Contains(out, "capsem: no-fetch: once only") {
			t.Errorf("v%s: %v\n%s", version, err, out)
		}
	}
}

func TestThePushThatAsksWaitsForTheOwner(t *testing.T) {
	g := newRig(t, open+"[[git]]\nid = \"ask\"\neffect = \"ask\"\nreason = \"look first\"\nops = [\"push\"]\n", false)
	g.clone()
	g.commit("topic", 10)
	out, err := g.try(g.work, "push", "origin", "topic")
	if err == nil || !strings.Contains(out, "the owner did not agree") || g.at("topic") != "" {
		t.Errorf("%v\n%s", err, out)
	}
	g.agree = true
	g.git(g.work, "push", "-q", "origin", "topic")
	if len(g.asked) != 2 || !strings.Contains(g.asked[1], "refs/heads/topic") || !strings.Contains(g.asked[1], "git.test/team/repo") {
		t.Errorf("%q", g.asked)
	}
}

func zipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

func TestCommandsInDisguiseAreRefused(t *testing.T) {
	g := newRig(t, agents, false)
	c := g.client()
	id, zero := strings.Repeat("a", 40), strings.Repeat("0", 40)
	evil := gitwire.AppendFlush(gitwire.AppendPacket(nil, zero+" "+id+" refs/heads/main\x00report-status\n"))
	dots := gitwire.AppendFlush(gitwire.AppendPacket(nil, zero+" "+id+" refs/heads/agent/../main\x00report-status\n"))
	cert := gitwire.AppendPacket(nil, "push-cert\x00report-status\n")
	for _, l := range []string{"certificate version 0.1\n", "pusher a\n", "\n", zero + " " + id + " refs/heads/main\n", "-----BEGIN PGP SIGNATURE-----\n", "push-cert-end\n"} {
		cert = gitwire.AppendPacket(cert, l)
	}
	cert = gitwire.AppendFlush(cert)
	for what, x := range map[string]struct {
		path, encoding string
		body           []byte
		says           string
	}{
		"zipped":            {"/team/repo.git/git-receive-pack", "gzip", zipped(evil), "ng refs/heads/main capsem: team/other"},
		"unknown encoding":  {"/team/repo.git/git-receive-pack", "xyz", evil, "capsem:malformed"},
		"encoded path":      {"/team/repo.git/git-receive%2dpack", "", evil, "capsem:malformed"},
		"doubled slash":     {"/team//repo.git/git-receive-pack", "", evil, "capsem:"},
		"parameters":        {"/team/repo.git/git-receive-pack;x", "", evil, "capsem:malformed"},
		"in capitals":       {"/team/repo.git/Git-Receive-Pack", "", evil, "capsem:malformed"},
		"dots in the ref":   {"/team/repo.git/git-receive-pack", "", dots, "capsem:malformed"},
		"in a certificate":  {"/team/repo.git/git-receive-pack", "", cert, "ng refs/heads/main capsem: team/other"},
		"cut short":         {"/team/repo.git/git-receive-pack", "", evil[:20], "capsem:malformed"},
		"an upload of LFS":  {"/team/repo.git/info/lfs/objects/batch", "", []byte(`{"operation":"upload","ref":{"name":"refs/heads/main"}}`), "team/other"},
		"LFS with two keys": {"/team/repo.git/info/lfs/objects/batch", "", []byte(`{"operation":"upload","operation":"download","ref":{"name":"refs/heads/main"}}`), "team/other"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.TrimSuffix(g.url, "/team/repo.git")+x.path, bytes.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-git-receive-pack-request")
		if x.encoding != "" {
			req.Header.Set("Content-Encoding", x.encoding)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !strings.Contains(string(text), x.says) {
			t.Errorf("%s: %d %q", what, res.StatusCode, text)
		}
	}
	if g.packs() != 0 {
		t.Error("a push reached the server")
	}
}

func TestPushesWithOptionsAndAgainInGzipPass(t *testing.T) {
	g := newRig(t, agents, false)
	g.git(g.bare, "config", "receive.advertisePushOptions", "true")
	g.clone()
	g.commit("agent/o", 10)
	g.git(g.work, "push", "-q", "-o", "ci.skip", "origin", "agent/o")
	if g.at("agent/o") == "" {
		t.Fatal("the push with options did not arrive")
	}
	g.mu.Lock()
	body := g.pushes[len(g.pushes)-1]
	g.mu.Unlock()
	g.git(g.bare, "update-ref", "-d", "refs/heads/agent/o")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/git-receive-pack", bytes.NewReader(zipped(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-git-receive-pack-request")
	req.Header.Set("Content-Encoding", "gzip")
	req.SetBasicAuth("agent", placeholder)
	res, err := g.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if g.at("agent/o") == "" {
		t.Errorf("%d %q", res.StatusCode, text)
	}
}

func TestRefusalsAreOnRecordWithTheirRule(t *testing.T) {
	g := newRig(t, agents, false)
	g.clone()
	g.commit("agent/x", 10)
	if _, err := g.try(g.work, "push", "origin", "HEAD:main"); err == nil {
		t.Fatal("it passes")
	}
	g.rows.mu.Lock()
	defer g.rows.mu.Unlock()
	for _, e := range g.rows.all {
		if strings.Contains(e.Path, receive) && e.Rule == "team/other" && e.Decision == "denied" {
			return
		}
	}
	t.Errorf("%+v", g.rows.all)
}
