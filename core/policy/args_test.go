package policy

import (
	"strings"
	"testing"
)

func TestArgumentsOfACall(t *testing.T) {
	set, err := Parse(`
[[rule]]
id = "deep"
effect = "deny"
mcp_server = ["s"]
when = 'has(args.opts) && args.opts.force == true || "paths" in args && args.paths.exists(p, p.startsWith("/etc"))'
[[rule]]
id = "yes"
effect = "allow"
mcp_server = ["s"]
when = 'args.size() < 5'
`, LayerUser)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		``: "yes", `{}`: "yes", `null`: "yes", `{"opts":{"force":false}}`: "yes", `{"opts":{"force":true}}`: "deep", `{"paths":["/tmp","/etc/x"]}`: "deep",
		`{"opts":3}`: "deep", `{"paths":[1]}`: "deep", `[1]`: "deep", `{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`: "deep", // doubt is severe
		`{"a":"` + strings.Repeat("x", maxArgs) + `"}`: "deep", `{"a":1,"b":2,"c":3,"d":4,"e":5}`: RuleDefault,
	} {
		v := p.Decide(&Request{MCPServer: "s", MCPTool: "t", MCPArgs: []byte(args)})
		if v.RuleID != want {
			t.Errorf("%.60s is decided by %s (%s)", args, v.RuleID, v.Effect)
		}
	}
}
