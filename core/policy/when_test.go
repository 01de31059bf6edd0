package policy

import (
	"strings"
	"testing"
	"time"
)

func TestWhenDecidesByTheFactsItIsGiven(t *testing.T) {
	full := func(r *Request) {
		r.VM, r.Process, r.Exe, r.BodySize = "dev", "git", "/usr/bin/git", 7
		r.Header = map[string][]string{"X-A": {"1", "2"}}
	}
	for expr, want := range map[string]string{
		`host == "a.x.com" && port == 443 && scheme == "https"`: "allow",
		`method == "GET" && path == "/p/q"`:                     "allow",
		`query["n"] == ["1", "2"]`:                              "allow",
		`headers["x-a"].exists(v, v == "2")`:                    "allow",
		`process == "git" && exe.endsWith("/git")`:              "allow",
		`vm == "dev" && body_size < 10`:                         "allow",
		`path.matches("^/p/[a-z]$")`:                            "allow",
		`mcp_server == ""`:                                      "allow",
		`port == 80`:                                            "deny",
		`headers["missing"][0] == "x"`:                          "deny",
	} {
		p := compiledFrom(t, "user", rule("allow", "when = '''"+expr+"'''"))
		if got, _, _ := strings.Cut(decided(t, p, "GET https://a.x.com/p/q?n=1&n=2", full), ":"); got != want {
			t.Errorf("%s: %s", expr, got)
		}
	}
}

func TestAWhenThatFailsFailsClosed(t *testing.T) {
	const broken = `when = 'headers["missing"][0] == "x"'`
	r := request(t, "GET https://x.com/")
	for effect, want := range map[string]Effect{"allow": Deny, "ask": Ask, "deny": Deny} {
		p := compiledFrom(t, "corp", rule(effect, broken), "user", "[[rule]]\nid = \"next\"\neffect = \""+map[string]string{"allow": "deny", "ask": "allow", "deny": "allow"}[effect]+"\"")
		v := p.Decide(&r)
		if v.Effect != want || !strings.Contains(v.Err, "missing") {
			t.Errorf("%s: %+v", effect, v)
		}
		if (v.RuleID == effect) != (effect != "allow") {
			t.Errorf("%s: decided by %s", effect, v.RuleID)
		}
	}
}

func TestAWhenAboutMissingFactsWaitsEarlyAndCountsAgainstTheRequestLate(t *testing.T) {
	p := compiledFrom(t, "user", rule("allow", `when = 'method == "GET"'`))
	r := request(t, "CONNECT x.com:443")
	if v := p.Possible(&r); v.Effect != Allow {
		t.Errorf("early: %+v", v)
	}
	r.Scheme = "https"
	if v := p.Decide(&r); v.Effect != Deny {
		t.Errorf("a tunnel: %+v", v)
	}
	p = compiledFrom(t, "user", rule("allow", `when = 'body_size < 10'`))
	r = request(t, "POST https://x.com/")
	r.BodySize = -1
	if v := p.Decide(&r); v.Effect != Deny || v.Err == "" {
		t.Errorf("a body of unknown size: %+v", v)
	}
}

func TestAWhenSeesEveryReadingOfAPath(t *testing.T) {
	p := compiledFrom(t, "corp", rule("deny", `when = 'path.startsWith("/admin")'`), "user", rule("allow", ""))
	for path, want := range map[string]string{"/a": "allow:allow", "/a%2f..%2f../admin": "deny:deny", "/x/..;/admin": "deny:deny"} {
		if got := decided(t, p, "GET https://x.com/", func(r *Request) { r.Path = path }); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func TestALoopBombIsCut(t *testing.T) {
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 100), ",") + "]"
	bombs := map[string]string{
		"loops in loops": list + ".all(a, " + list + ".all(b, " + list + ".all(c, " + list + ".all(d, a + b + c + d > 0))))",
		"growing text":   `["a"].map(a, a+a+a+a+a+a+a+a).map(b, b+b+b+b+b+b+b+b).map(c, c+c+c+c+c+c+c+c).map(d, d+d+d+d+d+d+d+d).map(e, e+e+e+e+e+e+e+e).map(f, f+f+f+f+f+f+f+f).map(g, g+g+g+g+g+g+g+g).map(h, h+h+h+h+h+h+h+h)[0] != host`,
		"hostile input":  `headers["x"].all(a, headers["x"].all(b, headers["x"].all(c, a.contains(b) || a != c)))`,
	}
	for name, expr := range bombs {
		p := compiledFrom(t, "user", rule("allow", "when = '''"+expr+"'''"))
		r := request(t, "GET https://x.com/")
		r.Header = map[string][]string{}
		for range 1000 {
			r.Header["X"] = append(r.Header["X"], strings.Repeat("a", 1000))
		}
		start := time.Now()
		v := p.Decide(&r)
		if v.Effect != Deny || !strings.Contains(v.Err, "limit") {
			t.Errorf("%s: %+v", name, v)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s took %v", name, d)
		}
	}
}

func TestExpressionsThatMeanNothingAreRefused(t *testing.T) {
	for _, expr := range []string{
		"", "1", "host", "nope == 1", "host == 1", "host.nope()", "method ==", strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200),
		strings.TrimSuffix(strings.Repeat("true && ", 3000), "&& "), `path.matches("(((a{100}){100}){100}){100}")`, "headers.x == y", `env("HOME") == ""`, "\x00",
	} {
		s := &Set{Layer: LayerUser, Rules: []Rule{{ID: "a", Effect: Allow, When: expr}}}
		if expr == "" {
			continue
		}
		if _, err := Compile(s); err == nil || !strings.Contains(err.Error(), `rule 1 "a"`) {
			t.Errorf("%.60q: %v", expr, err)
		}
	}
}
