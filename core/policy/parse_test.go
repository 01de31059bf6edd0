package policy

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const everything = `
[[rule]]
id = "all/of-it"
effect = "ask"
reason = "why"
hosts = ["*.X.com.", "10.0.0.0/8"]
ports = [443, "8000-8010"]
schemes = ["https", "wss"]
methods = ["GET", "POST"]
paths = ["/a/**"]
query = ["q=*"]
headers = ["X-A: b*"]
process = ["git"]
min_body = 1
max_body = "10MB"
cidr = ["10.0.0.0/8"]
when = 'port == 443'

[[rule]]
id = "tools"
effect = "allow"
mcp_server = ["gh"]
mcp_tool = ["read_*"]

[[rule]]
id = "names"
effect = "deny"
dns_name = ["**.track.example"]
`

func TestARuleIsReadAndWrittenWhole(t *testing.T) {
	s, err := Parse(everything, LayerUser)
	if err != nil {
		t.Fatal(err)
	}
	r := s.Rules[0]
	if r.Hosts[0] != "*.x.com" || r.Ports[1] != (PortRange{8000, 8010}) || r.MaxBody != 10<<20 || r.Line() != 2 || s.Rules[1].Line() != 19 || r.CIDR[0].Bits() != 8 {
		t.Errorf("%+v", r)
	}
	text, err := Format(s.Rules)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(text, LayerUser)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	for i := range s.Rules {
		s.Rules[i].line, again.Rules[i].line = 0, 0
	}
	if !reflect.DeepEqual(s, again) {
		t.Errorf("%+v\nbecame\n%+v", s, again)
	}
}

func TestMistakesAreRefusedWithTheirLine(t *testing.T) {
	const head = "\n\n[[rule]]\nid = \"a\"\neffect = \"allow\"\n"
	for body, want := range map[string]string{
		`hots = ["x.com"]`:           "line 6: unknown key \"rule.hots\"",
		`hosts = "x.com"`:            "line 6",
		`hosts = ["x.com"`:           "line 6",
		`hosts = ["a b"]`:            `line 3, rule "a": "a b" is no host pattern`,
		`hosts = []`:                 "line 3, rule \"a\": an empty list",
		`ports = [0]`:                "0 is no port",
		`ports = ["9-1"]`:            "9-1 is no port",
		`ports = [1.5]`:              "a port is",
		`ports = ["443x"]`:           "no port",
		`schemes = ["ftp"]`:          "scheme \"ftp\"",
		`methods = ["get"]`:          "capitals",
		`paths = ["a"]`:              "slash",
		`paths = ["/a//b"]`:          "never match",
		`paths = ["/a/../b"]`:        "never match",
		`paths = ["/%61"]`:           "never match",
		`paths = ["/a?b"]`:           "never match",
		`query = ["=x"]`:             "key=glob",
		`headers = ["a b: c"]`:       "key:glob",
		`min_body = 0`:               "no size",
		`max_body = "10XB"`:          "no size",
		`max_body = "99999999999GB"`: "no size",
		"min_body = 5\nmax_body = 4": "do not go together",
		`cidr = ["10.0.0.0/8"]`:      "say which hosts",
		"hosts = [\"x.com\"]\ncidr = [\"10.0.0.1/8\"]":                "no address range",
		`schemes = ["tcp"]`:                                           "which ports",
		"schemes = [\"tcp\"]\nmethods = [\"GET\"]":                    "never hold",
		"schemes = [\"dns\"]\nports = [53]":                           "a lookup has no",
		"dns_name = [\"x.com\"]\nhosts = [\"x.com\"]":                 "lookups only",
		"mcp_server = [\"x\"]\nhosts = [\"x.com\"]":                   "no condition on connections",
		"reason = \"a\\nb\"":                                          "one line",
		`reason = "` + strings.Repeat("a", 501) + `"`:                 "one line",
		`when = 'x'` + "\nhosts = [1]":                                "line 7",
		"[[rule]]\nid = \"a\"\neffect = \"deny\"":                     `line 6, rule "a": there is another`,
		"[[rule]]\nid = \"b\"\neffect = \"maybe\"":                    `line 6, rule "b": effect`,
		"[[rule]]\neffect = \"deny\"":                                 `line 6, rule "": id`,
		"[[rule]]\nid = \"b\"\neffect = \"ask\"\nschemes = [\"dns\"]": "cannot wait",
		"[other]\na = 1":                                              "unknown key",
	} {
		if _, err := Parse(head+body, LayerUser); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", body, err, want)
		}
	}
	if _, err := Parse(`presets = ["nope"]`, LayerUser); err == nil || !strings.Contains(err.Error(), "nope") {
		t.Error(err)
	}
	if _, err := Parse(`presets = ["npm", "npm"]`, LayerUser); err == nil {
		t.Error("a preset twice")
	}
}

func TestSizesAreBounded(t *testing.T) {
	many := func(n int, f func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(f(i))
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"bytes":    strings.Repeat("#", MaxText+1),
		"rules":    many(MaxRules+1, func(i int) string { return fmt.Sprintf("[[rule]]\nid=\"%d\"\neffect=\"deny\"\n", i) }),
		"a list":   rule("deny", "hosts = ["+many(maxList+1, func(i int) string { return fmt.Sprintf("\"h%d.x\",", i) })+"]"),
		"a path":   rule("deny", `paths = ["/`+strings.Repeat("a", maxPattern)+`"]`),
		"stars":    rule("deny", `paths = ["/`+strings.Repeat("*a", maxStars+1)+`"]`),
		"when":     rule("deny", "when = '"+strings.Repeat(" ", maxWhen)+"true'"),
		"presets":  "presets = [" + many(maxList+1, func(i int) string { return fmt.Sprintf("\"p%d\",", i) }) + "]",
		"brackets": "a = " + strings.Repeat("[", 200_000),
		"tables":   strings.Repeat("[a.", 1000),
	} {
		if _, err := Parse(text, LayerUser); err == nil {
			t.Errorf("too many or too long: %s", name)
		}
	}
	full := many(MaxRules, func(i int) string { return fmt.Sprintf("[[rule]]\nid=\"%d\"\neffect=\"deny\"\n", i) })
	s, err := Parse(full, LayerUser)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Compile(s, &Set{Layer: LayerUser, Rules: []Rule{{ID: "x", Effect: Deny}}}); err == nil {
		t.Error("a layer of two sets is too large and compiled")
	}
}

func TestCompileChecksRulesThatWereNotParsed(t *testing.T) {
	for name, s := range map[string]*Set{
		"no layer":         {Rules: []Rule{{ID: "a", Effect: Deny}}},
		"no id":            {Layer: LayerUser, Rules: []Rule{{Effect: Deny}}},
		"no effect":        {Layer: LayerUser, Rules: []Rule{{ID: "a"}}},
		"same id":          {Layer: LayerUser, Rules: []Rule{{ID: "a", Effect: Deny}, {ID: "a", Effect: Deny}}},
		"host not normal":  {Layer: LayerUser, Rules: []Rule{{ID: "a", Effect: Deny, Hosts: []HostPattern{"X.com"}}}},
		"host that is bad": {Layer: LayerUser, Rules: []Rule{{ID: "a", Effect: Deny, Hosts: []HostPattern{"*"}}}},
		"port":             {Layer: LayerUser, Rules: []Rule{{ID: "a", Effect: Deny, Ports: []PortRange{{9, 1}}}}},
	} {
		if _, err := Compile(s); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
	same := []Rule{{ID: "a", Effect: Deny}}
	if _, err := Compile(&Set{Layer: LayerUser, Rules: same}, &Set{Layer: LayerCorp, Rules: same}); err != nil {
		t.Errorf("the same id in two layers: %v", err)
	}
}
