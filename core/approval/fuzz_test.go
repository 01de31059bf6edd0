package approval

import (
	"encoding/json"
	"testing"
	"unicode"

	"capsem/core/policy"
	"capsem/core/proto"
)

// FuzzQuestion makes questions of whatever a guest sends: they are bounded and can be shown, and the rule of an "always" allows the request
// that it is made for, with no other method and on no other port.
func FuzzQuestion(f *testing.F) {
	f.Add("x.test", "GET", "/a/b", "q=1", "curl", "curl -v\x1b[2J", uint16(443))
	f.Add("[::1]", "POST", "/a/*/%2e%2e/\\", "", "\u202e", "", uint16(8443))
	f.Fuzz(func(t *testing.T, host, method, path, query, process, command string, port uint16) {
		req := policy.Request{VM: "vm1", Host: host, Port: port, Scheme: "https", Method: method, Path: path, Query: query, Process: process, BodySize: -1}
		v := policy.Verdict{Effect: policy.Ask, RuleID: "r", Layer: policy.LayerUser, Reason: "because"}
		q := newQuestion(&req, &v, &proto.ProcessClaim{Name: process, CommandLine: command, Parents: []string{command}})
		q.forShow()
		var rules map[string]policy.Rule
		q.Choices, rules = q.choices()
		text, err := json.Marshal(q)
		if err != nil || len(text) > 12*(2*maxURL+maxCommand+20*maxText) {
			t.Fatalf("%d bytes, %v", len(text), err)
		}
		for _, s := range []string{q.URL, q.Host, q.Method, q.Path, q.Process.Name, q.Process.CommandLine, q.Process.Parents[0]} {
			for _, r := range s {
				if !unicode.IsPrint(r) && r != unicode.ReplacementChar {
					t.Fatalf("%q is shown", s)
				}
			}
		}
		for reach, r := range rules {
			p, err := policy.Compile(&policy.Set{Layer: policy.LayerUser, Rules: []policy.Rule{r}})
			if err != nil {
				t.Fatalf("%s: %v", reach, err)
			}
			if v := p.Decide(&req); v.Effect != policy.Allow {
				t.Fatalf("%s: %+v does not allow %s", reach, r, req.String())
			}
			for _, change := range []func(*policy.Request){
				func(r *policy.Request) { r.Method += "X" },
				func(r *policy.Request) { r.Port++ },
				func(r *policy.Request) { r.Scheme = "http" },
				func(r *policy.Request) { r.Host = "other.test.example" },
			} {
				other := req
				change(&other)
				if v := p.Decide(&other); v.Effect == policy.Allow {
					t.Fatalf("%s: %+v allows %s", reach, r, other.String())
				}
			}
		}
	})
}
