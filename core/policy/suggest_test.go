package policy

import (
	"fmt"
	"strings"
	"testing"
)

func suggested(t *testing.T, lines ...string) string {
	t.Helper()
	var refused []Request
	for _, l := range lines {
		refused = append(refused, request(t, l))
	}
	var out []string
	for _, r := range Suggest(refused) {
		words := []string{r.Effect.String()}
		for _, part := range [][]string{r.Methods, r.Schemes, stringsOf(r.Hosts), r.Paths, r.MCPServer, r.MCPTool} {
			if len(part) > 0 {
				words = append(words, strings.Join(part, ","))
			}
		}
		for _, p := range r.Ports {
			words = append(words, ":"+p.String())
		}
		out = append(out, strings.Join(words, " "))
	}
	return strings.Join(out, "; ")
}

func TestSuggestGivesTheNarrowestRules(t *testing.T) {
	for _, c := range []struct {
		name, want string
		refused    []string
	}{
		{"one", "allow GET https x.com /a/b", []string{"GET https://X.com./a/b?q=1"}},
		{"the same twice", "allow GET https x.com /a", []string{"GET https://x.com/a", "GET https://x.com/a"}},
		{"two methods", "allow GET,HEAD https x.com /a", []string{"GET https://x.com/a", "HEAD https://x.com/a"}},
		{"methods apart", "allow GET https x.com /a; allow POST https x.com /b", []string{"GET https://x.com/a", "POST https://x.com/b"}},
		{"few paths", "allow GET https x.com /a/1,/a/2", []string{"GET https://x.com/a/2", "GET https://x.com/a/1"}},
		{"many paths", "allow GET https x.com /a/b/**,/c", []string{
			"GET https://x.com/a/b/1", "GET https://x.com/a/b/2", "GET https://x.com/a/b/3", "GET https://x.com/a/b/4", "GET https://x.com/c",
		}},
		{"a port", "allow GET https x.com /a :8443", []string{"GET https://x.com:8443/a"}},
		{"tcp", "allow tcp x.com :22", []string{"TCP x.com:22"}},
		{"hosts apart", "allow GET https a.x.com /; allow GET https b.x.com /", []string{"GET https://a.x.com/", "GET https://b.x.com/"}},
		{"a lookup alone", "ask https x.com", []string{"DNS x.com"}},
		{"a lookup and what came of it", "allow GET https x.com /", []string{"DNS x.com", "GET https://x.com/"}},
		{"a connection", "ask x.com :443", []string{"CONNECT x.com:443"}},
		{"tools", "allow gh read,write", []string{"MCP gh write", "MCP gh read"}},
		{"stars are plain", `allow GET https x.com /a\*`, []string{"GET https://x.com/a*"}},
		{"what no rule can allow", "", []string{"GET https://x.com/a/..%2fb", "get https://x.com/"}},
	} {
		if got := suggested(t, c.refused...); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestWhatIsSuggestedAllowsWhatWasRefusedAndLittleElse(t *testing.T) {
	rnd := newRandom(5)
	for range 200 {
		var refused []Request
		for range 1 + rnd.IntN(40) {
			r := request(t, fmt.Sprintf("%s https://%s/%s/%s", pick(rnd, "GET", "POST"), pick(rnd, "x.com", "a.x.com"), pick(rnd, "a", "b"), pick(rnd, "1", "2", "3/4", "5", "6*")))
			refused = append(refused, r)
		}
		rules := Suggest(refused)
		text, err := Format(rules)
		if err != nil {
			t.Fatal(err)
		}
		p := compiledFrom(t, "user", text)
		for _, r := range refused {
			if v := p.Decide(&r); v.Effect != Allow {
				t.Fatalf("%s is %+v with\n%s", r.String(), v, text)
			}
			for _, other := range []func(r *Request){
				func(r *Request) { r.Host = "b." + r.Host }, func(r *Request) { r.Method = "DELETE" }, func(r *Request) { r.Path = "/z" + r.Path }, func(r *Request) { r.Port = 8443 },
			} {
				o := r
				other(&o)
				if v := p.Decide(&o); v.Effect == Allow {
					t.Fatalf("%s is allowed too with\n%s", o.String(), text)
				}
			}
		}
	}
}

func TestTablesOfExpectedVerdicts(t *testing.T) {
	p := compiledFrom(t, "user", rule("allow", "hosts = [\"x.com\"]\nmethods = [\"GET\"]\nprocess = [\"git\"]\nheaders = [\"X-A: 1\"]")+rule("ask", "hosts = [\"x.com\"]\nmin_body = 10"))
	cases, err := ParseTable(`
[[case]]
name = "reading"
request = "GET https://x.com/a"
process = "git"
headers = ["X-A: 1"]
expect = "allow"
rule = "allow"

[[case]]
request = "POST https://x.com/a"
body = "1KB"
expect = "ask"

[[case]]
request = "CONNECT x.com:443"
process = "git"
early = true
expect = "allow"

[[case]]
name = "wrong effect"
request = "DNS y.com"
expect = "allow"

[[case]]
name = "wrong rule"
request = "TCP y.com:22"
expect = "deny"
rule = "nope"
`)
	if err != nil {
		t.Fatal(err)
	}
	results := RunTests(p, cases)
	failed := Failed(results)
	if len(results) != 5 || len(failed) != 2 {
		t.Fatalf("%+v", results)
	}
	for i, want := range []string{"line 21, wrong effect: is deny by rule capsem:default (no rule allows this), not allow", "line 26, wrong rule: is deny by rule capsem:default, not by nope"} {
		if failed[i].Message != want {
			t.Errorf("%s", failed[i].Message)
		}
	}
	for _, bad := range []string{
		"[[case]]\nrequest = \"GET /\"\nexpect = \"deny\"", "[[case]]\nrequest = \"DNS a b\"\nexpect = \"deny\"", "[[case]]\nrequest = \"MCP a\"\nexpect = \"deny\"",
		"[[case]]\nrequest = \"TCP x.com\"\nexpect = \"deny\"", "[[case]]\nrequest = \"DNS x.com\"", "[[case]]\nrequest = \"DNS x.com\"\nexpect = \"deny\"\nnope = 1",
		"[[case]]\nrequest = \"GET https://x.com/\"\nexpect = \"deny\"\nheaders = [\"x\"]", "[[case]]\nrequest = \"TCP x.com:0\"\nexpect = \"deny\"",
	} {
		if _, err := ParseTable(bad); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
