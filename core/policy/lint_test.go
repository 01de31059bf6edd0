package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestLintFindsRulesThatDoNotDoWhatTheySay(t *testing.T) {
	id := func(id, effect, body string) string {
		return "[[rule]]\nid = \"" + id + "\"\neffect = \"" + effect + "\"\nreason = \"r\"\n" + body + "\n"
	}
	const x, subs = `hosts = ["a.x.com"]`, `hosts = ["**.x.com"]`
	for name, c := range map[string]struct {
		sets []string
		want string
	}{
		"clean":                     {[]string{"user", id("a", "allow", x)}, ""},
		"duplicate":                 {[]string{"user", id("a", "allow", x) + id("b", "allow", x)}, "b duplicate"},
		"said already":              {[]string{"user", id("a", "allow", subs) + id("b", "allow", x)}, "b shadowed"},
		"never reached":             {[]string{"user", id("a", "deny", subs) + id("b", "allow", x)}, "b shadowed"},
		"reached for other paths":   {[]string{"user", id("a", "deny", subs+"\npaths = [\"/a/**\"]") + id("b", "allow", x)}, ""},
		"never reached, paths":      {[]string{"user", id("a", "deny", subs+"\npaths = [\"/a/**\"]") + id("b", "allow", x+"\npaths = [\"/a/b\", \"/a/c/*\"]")}, "b shadowed"},
		"reached for other ports":   {[]string{"user", id("a", "allow", subs) + id("b", "deny", x)}, ""},
		"never reached, methods":    {[]string{"user", id("a", "deny", subs+"\nmethods = [\"GET\", \"PUT\"]") + id("b", "ask", x+"\nmethods = [\"PUT\"]")}, "b shadowed"},
		"reached, when":             {[]string{"user", id("a", "deny", subs+"\nwhen = 'port == 1'") + id("b", "allow", x)}, ""},
		"reached, a lookup":         {[]string{"user", id("a", "deny", `dns_name = ["**"]`) + id("b", "allow", x)}, ""},
		"other layer, said already": {[]string{"user", id("a", "allow", subs), "defaults", id("b", "allow", x)}, "b shadowed"},
		"corp denies":               {[]string{"corp", id("a", "deny", subs), "user", id("b", "allow", x)}, "b corp-denied"},
		"corp denies a VM's":        {[]string{"corp", id("a", "deny", subs), "vm", id("b", "allow", x)}, "b corp-denied; b vm-allow"},
		"a VM's allow of nothing":   {[]string{"user", id("a", "allow", `hosts = ["y.com"]`), "vm", id("b", "allow", x)}, "b vm-allow"},
		"a VM's allow":              {[]string{"user", id("a", "allow", subs), "vm", id("b", "allow", `hosts = ["*.a.x.com"]`)}, ""},
		"allow all":                 {[]string{"user", id("a", "allow", "")}, "a allow-all"},
		"allow all by stars":        {[]string{"user", id("a", "allow", `hosts = ["**"]`)}, "a allow-all"},
		"allow reading":             {[]string{"user", id("a", "allow", "hosts = [\"**\"]\nmethods = [\"GET\"]")}, ""},
		"a top-level domain":        {[]string{"user", id("a", "allow", "hosts = [\"**.com\"]")}, "a broad"},
		"no reason":                 {[]string{"user", "[[rule]]\nid = \"a\"\neffect = \"deny\"\n" + x}, "a no-reason"},
		"a process":                 {[]string{"user", id("a", "allow", x+"\nprocess = [\"git\"]")}, "a claim"},
		"when of a tool":            {[]string{"user", id("a", "allow", "mcp_server = [\"g\"]\nwhen = 'path == \"/\"'")}, "a when-stage"},
		"when of a lookup":          {[]string{"user", id("a", "allow", "dns_name = [\"x.com\"]\nwhen = 'port == 443'")}, "a when-stage"},
		"when of tcp":               {[]string{"user", id("a", "allow", x+"\nschemes = [\"tcp\"]\nports = [22]\nwhen = 'method == \"GET\"'")}, "a when-stage"},
		"when of a request on MCP":  {[]string{"user", id("a", "allow", x+"\nwhen = 'mcp_tool == \"x\"'")}, "a when-stage"},
		"tcp with methods":          {[]string{"user", id("a", "allow", x+"\nschemes = [\"tcp\", \"https\"]\nports = [443]\nmethods = [\"GET\"]")}, "a nothing"},
		"CONNECT":                   {[]string{"user", id("a", "deny", x+"\nmethods = [\"CONNECT\"]")}, "a nothing"},
		"a name without a dot":      {[]string{"user", id("a", "allow", `hosts = ["intranet"]`)}, "a nothing"},
		"opening what is open":      {[]string{"user", id("a", "allow", x+"\ncidr = [\"8.8.8.0/24\"]")}, "a nothing"},
		"a VM that opens":           {[]string{"user", id("a", "allow", x), "vm", id("b", "allow", x+"\ncidr = [\"10.0.0.0/8\"]")}, "b nothing"},
		"plain HTTP":                {[]string{"user", id("a", "allow", x+"\nschemes = [\"http\"]")}, "a plaintext"},
	} {
		var got []string
		for _, f := range Lint(compiledFrom(t, c.sets...)) {
			got = append(got, f.RuleID+" "+f.Code)
			if f.Line == 0 || f.Message == "" || !strings.Contains(f.String(), f.Code) {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestARuleThatLintCallsShadowedNeverDecides(t *testing.T) {
	rnd := newRandom(11)
	shadowed := 0
	for range 400 {
		p := rnd.policy(t, 25, false)
		var ids []string
		for _, f := range Lint(p) {
			if f.Layer != LayerVM && slices.Contains([]string{LintShadowed, LintDuplicate, LintCorpDenied}, f.Code) {
				ids = append(ids, f.RuleID)
			}
		}
		shadowed += len(ids)
		for range 100 {
			r := rnd.request()
			if r.Scheme == "dns" {
				continue // a lookup hopes: what decides it need not decide a request
			}
			if v := p.Decide(&r); slices.Contains(ids, v.RuleID) && !v.Doubt {
				t.Fatalf("%+v is decided by %s: %+v", r, v.RuleID, Lint(p))
			}
		}
	}
	if shadowed < 100 {
		t.Errorf("only %d", shadowed)
	}
}
