package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestLayers(t *testing.T) {
	deny := func(host string) string { return rule("deny", `hosts = ["`+host+`"]`) }
	allow := func(host string) string { return rule("allow", `hosts = ["`+host+`"]`) }
	ask := func(host string) string { return rule("ask", `hosts = ["`+host+`"]`) }
	for name, c := range map[string]struct {
		sets []string
		want string
	}{
		"nothing allows":                   {nil, "deny:default"},
		"corp denies, user allows":         {[]string{"user", allow("**"), "corp", deny("**.x.com")}, "deny:deny"},
		"corp denies, defaults allow":      {[]string{"defaults", allow("x.com"), "corp", deny("x.com")}, "deny:deny"},
		"corp asks, user allows":           {[]string{"user", allow("**"), "corp", ask("x.com")}, "ask:ask"},
		"corp allows, user denies":         {[]string{"user", deny("**"), "corp", allow("x.com")}, "allow:allow"},
		"user denies, defaults allow":      {[]string{"defaults", allow("**"), "user", deny("x.com")}, "deny:deny"},
		"the first of a layer":             {[]string{"user", allow("x.com") + deny("**")}, "allow:allow"},
		"the first of a layer, denying":    {[]string{"user", deny("**") + allow("x.com")}, "deny:deny"},
		"a VM cannot allow":                {[]string{"vm", allow("**")}, "deny:default"},
		"a VM cannot undo a deny":          {[]string{"user", deny("x.com"), "vm", allow("x.com")}, "deny:deny"},
		"a VM cannot undo an ask":          {[]string{"user", ask("x.com"), "vm", allow("x.com")}, "ask:ask"},
		"a VM denies":                      {[]string{"user", allow("**"), "vm", deny("x.com")}, "deny:deny"},
		"a VM asks":                        {[]string{"user", allow("**"), "vm", ask("x.com")}, "ask:ask"},
		"a VM says nothing":                {[]string{"user", allow("**"), "vm", deny("y.com")}, "allow:allow"},
		"a VM's list of what it may":       {[]string{"user", allow("**"), "vm", allow("y.com") + deny("**")}, "deny:deny"},
		"a VM's list of what it may, this": {[]string{"user", allow("**"), "vm", allow("x.com") + deny("**")}, "allow:allow"},
		"another host's rules":             {[]string{"corp", deny("y.com"), "user", allow("x.com")}, "allow:allow"},
		"several sets of a layer in order": {[]string{"user", allow("x.com"), "user", deny("**")}, "allow:allow"},
	} {
		if got := decided(t, compiledFrom(t, c.sets...), "GET https://x.com/", nil); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestACorpDenyIsNotDodgedByWritingTheRequestDifferently(t *testing.T) {
	p := compiledFrom(t, "corp", rule("deny", "hosts = [\"**.x.com\"]\npaths = [\"/secret/**\"]"), "user", rule("allow", `hosts = ["**.x.com"]`))
	for _, path := range []string{
		"/secret", "/secret/", "/secret/a", "/Secret/a", "/%73ecret/a", "/a/../secret/a", "/a%2f..%2fsecret/a", "//secret//a", "/./secret/a", "/secret;x/a", "/%2573ecret/a",
		`/a\..\secret\a`, "/secret%2fa", "/a/%2e%2e/secret", "/;/secret/a", "/a;/../secret/a",
	} {
		got := decided(t, p, "GET https://a.x.com/", func(r *Request) { r.Path = path })
		if got != "deny:deny" {
			t.Errorf("%s: %s", path, got)
		}
	}
	for _, path := range []string{"/", "/secrets", "/a/secret", "/public/caf%C3%A9"} {
		if got := decided(t, p, "GET https://a.x.com/", func(r *Request) { r.Path = path }); got != "allow:allow" {
			t.Errorf("%s: %s", path, got)
		}
	}
	// A tunnel has no path to show, so it may be the one that is denied.
	if got := decided(t, p, "GET https://a.x.com/", func(r *Request) { r.Method, r.Path = "", "" }); got != "deny:deny" {
		t.Errorf("a tunnel: %s", got)
	}
}

func TestInDoubtTheMoreSevereOfTheReadingsCounts(t *testing.T) {
	p := compiledFrom(t, "user", rule("ask", "hosts = [\"x.com\"]\npaths = [\"/b\"]")+rule("allow", "hosts = [\"x.com\"]\npaths = [\"/a/**\", \"/b\"]"))
	for path, want := range map[string]string{
		"/b":           "ask:ask",
		"/a/1":         "allow:allow",
		"/a/..%2f../b": "ask:ask", // one reading is /b, the other below /a
		"/B":           "deny:default",
	} {
		if got := decided(t, p, "GET https://x.com/", func(r *Request) { r.Path = path }); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestEarlyStagesDenyOnlyWhatNothingCouldAllow(t *testing.T) {
	p := compiledFrom(t,
		"corp", "[[rule]]\nid = \"c\"\neffect = \"deny\"\nhosts = [\"bad.com\"]\n[[rule]]\nid = \"c2\"\neffect = \"deny\"\nhosts = [\"half.com\"]\nmethods = [\"POST\"]",
		"user", "[[rule]]\nid = \"u\"\neffect = \"allow\"\nhosts = [\"get.com\", \"half.com\"]\nmethods = [\"GET\", \"POST\"]\npaths = [\"/a/**\"]\n"+
			"[[rule]]\nid = \"q\"\neffect = \"ask\"\nhosts = [\"ask.com\"]\n[[rule]]\nid = \"t\"\neffect = \"allow\"\nhosts = [\"ssh.com\"]\nschemes = [\"tcp\"]\nports = [22]\n"+
			"[[rule]]\nid = \"b\"\neffect = \"allow\"\nhosts = [\"bad.com\"]\n[[rule]]\nid = \"g\"\neffect = \"allow\"\nhosts = [\"git.com\"]\nprocess = [\"git\"]",
		"vm", rule("deny", `hosts = ["ask.com"]`+"\npaths = [\"/x\"]")+"[[rule]]\nid = \"v\"\neffect = \"deny\"\nhosts = [\"narrow.com\"]")
	for line, want := range map[string]string{
		"DNS get.com":          "allow",
		"DNS half.com":         "allow",
		"DNS bad.com":          "deny",
		"DNS none.com":         "deny",
		"DNS ask.com":          "ask",
		"DNS ssh.com":          "allow",
		"CONNECT get.com:443":  "allow",
		"CONNECT get.com:80":   "allow",
		"CONNECT get.com:8080": "deny",
		"CONNECT bad.com:443":  "deny",
		"CONNECT ssh.com:22":   "allow",
		"CONNECT ssh.com:443":  "deny",
		"CONNECT ask.com:9":    "ask",
		"TCP get.com:443":      "deny",
		"TCP ssh.com:22":       "allow",
		"DNS git.com":          "allow", // who asks may be known when it connects
	} {
		r := request(t, line)
		if v := p.Possible(&r); v.Effect.String() != want {
			t.Errorf("%s: %s by %s, want %s", line, v.Effect, v.RuleID, want)
		}
		slow, steps := p.Explain(&r, true)
		if slow.Effect.String() != want || len(steps) == 0 {
			t.Errorf("%s explained: %s", line, slow.Effect)
		}
	}
	r := request(t, "POST https://half.com/a/1")
	if v := p.Decide(&r); v.Effect != Deny || v.RuleID != "c2" {
		t.Errorf("with all facts: %+v", v)
	}
}

func TestWhatIsPossibleEarlyIsNeverMoreSevereThanWhatIsDecidedLater(t *testing.T) {
	rnd := newRandom(7)
	for range 300 {
		p := rnd.policy(t, 30, false)
		aboutLookups := slices.ContainsFunc(append(slices.Clip(p.base.rules), p.vm.rules...), func(c *compiled) bool {
			return len(c.rule.DNSName) > 0 || c.named && c.schemes&schemeDNS != 0
		})
		for range 50 {
			full := rnd.request()
			if full.MCPServer != "" || full.Scheme == "dns" {
				continue
			}
			full.Process, full.Exe = "git", "/usr/bin/git"
			v := p.Decide(&full)
			for _, early := range []Request{
				{Scheme: "dns", Host: full.Host, Process: full.Process, Exe: full.Exe},
				{Host: full.Host, Port: full.Port, Process: full.Process, Exe: full.Exe},
				{Host: full.Host, Port: full.Port, Scheme: full.Scheme, Process: full.Process, Exe: full.Exe},
			} {
				e := p.Possible(&early)
				if e.Effect > v.Effect && (early.Scheme != "dns" || !aboutLookups) {
					t.Fatalf("%+v is %v, but %+v was %v", full, v, early, e)
				}
			}
		}
	}
}

func TestExplainNamesTheConditionThatFailed(t *testing.T) {
	p := compiledFrom(t, "corp", rule("deny", `hosts = ["y.com"]`), "user", rule("allow", "hosts = [\"x.com\"]\nmethods = [\"GET\"]"), "vm", rule("deny", `hosts = ["z.com"]`))
	r := request(t, "POST https://x.com/a")
	v, steps := p.Explain(&r, false)
	var got []string
	for _, s := range steps {
		got = append(got, s.Layer.String()+" "+s.Outcome+" "+s.Fact.String())
	}
	if want := "corp no host; user no method"; strings.Join(got, "; ") != want || v.RuleID != RuleDefault || v.Reason == "" {
		t.Errorf("%s, %+v", got, v)
	}
	r = request(t, "GET https://x.com/a")
	if v, steps := p.Explain(&r, false); v.Matched != FactHost|FactMethod || v.Layer != LayerUser || len(steps) != 3 || steps[1].Outcome != "yes" {
		t.Errorf("%+v %+v", v, steps)
	}
}
