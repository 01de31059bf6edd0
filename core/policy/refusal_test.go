package policy

import (
	"encoding/json"
	"strings"
	"testing"
)

const refusing = `
[[rule]]
id = "no-push"
effect = "deny"
reason = "pushing is for people"
hosts = ["github.com"]
methods = ["POST"]

[[rule]]
id = "read"
effect = "allow"
reason = "reading"
hosts = ["**.github.com"]
methods = ["GET"]
paths = ["/team/**"]

[[rule]]
id = "asks"
effect = "ask"
reason = "asks"
hosts = ["*.github.com", "github.com"]
headers = ["X-A"]
`

func TestARefusalSaysWhichRuleWhyAndWhatIsAllowed(t *testing.T) {
	p := compiledFrom(t, "user", refusing)
	r := request(t, "POST https://github.com/team/x")
	r.VM = "dev"
	got := p.Refusal(p.Decide(&r), &r)
	var body Refused
	if err := json.Unmarshal(got.Body, &body); err != nil || got.Status != 403 || got.Header["Content-Type"] != "application/json" {
		t.Fatalf("%+v %v", got, err)
	}
	if body.Rule != "no-push" || body.Reason != "pushing is for people" || body.Request != "POST https://github.com/team/x" || !strings.Contains(body.Ask, "policy suggest dev") {
		t.Errorf("%+v", body)
	}
	want := []string{"GET http,https,ws,wss://github.com paths /team/**", "any method http,https,ws,wss://github.com (with conditions on header) (asks the owner)"}
	if strings.Join(body.Allowed, "; ") != strings.Join(want, "; ") {
		t.Errorf("%q", body.Allowed)
	}
	r.Header = map[string][]string{"accept": {"text/html,application/json;q=0.9"}}
	if got := p.Refusal(p.Decide(&r), &r); !strings.HasPrefix(string(got.Body), "capsem: request denied\n") || !strings.Contains(string(got.Body), "rule: no-push") || got.Header["Content-Type"] != "text/plain; charset=utf-8" {
		t.Errorf("for a browser: %s %v", got.Body, got.Header)
	}
	r.Header = map[string][]string{"Accept": {"application/json, text/plain"}}
	if got := p.Refusal(p.Decide(&r), &r); got.Header["Content-Type"] != "application/json" {
		t.Errorf("for a program: %s", got.Body)
	}
}

func TestHowToAskDependsOnWhoRefused(t *testing.T) {
	p := compiledFrom(t, "corp", rule("deny", `hosts = ["corp.com"]`), "user", rule("ask", `hosts = ["ask.com"]`)+rule("allow", `hosts = ["x.com", "y.com"]`), "vm", rule("allow", `hosts = ["x.com"]`)+rule("deny", ""))
	for line, want := range map[string]string{"GET https://corp.com/": "organisation", "GET https://ask.com/": "policy suggest", "GET https://y.com/": "policy suggest"} {
		r := request(t, line)
		if got := p.Refused(p.Decide(&r), &r); !strings.Contains(got.Ask, want) || strings.Contains(line, "y.com") && len(got.Allowed) > 0 {
			t.Errorf("%s: %+v", line, got)
		}
	}
	r := request(t, "GET https://ask.com/")
	if got := p.Refused(Verdict{Effect: Ask, RuleID: "ask", Layer: LayerUser}, &r); !strings.Contains(got.Ask, "capsem approve") {
		t.Errorf("%+v", got)
	}
	r.Path = "/%00"
	if got := p.Refused(p.Decide(&r), &r); got.Rule != RuleMalformed || !strings.Contains(got.Ask, "plain form") {
		t.Errorf("%+v", got)
	}
}

func TestModelAPIsGetTheErrorOfTheirShape(t *testing.T) {
	p := compiledFrom(t)
	field := func(v any, path string) any {
		for key := range strings.SplitSeq(path, ".") {
			m, ok := v.(map[string]any)
			if !ok {
				return nil
			}
			v = m[key]
		}
		return v
	}
	for _, c := range []struct{ request, path, want string }{
		{"POST https://api.anthropic.com/v1/messages", "error.type", "permission_error"},
		{"POST https://api.anthropic.com/v1/messages?beta=true", "type", "error"},
		{"POST https://proxy.example/anthropic/v1/messages/count_tokens", "type", "error"},
		{"POST https://api.openai.com/v1/responses", "error.code", "capsem_policy"},
		{"POST https://llm.example/v1/chat/completions", "error.type", "permission_error"},
		{"POST https://generativelanguage.googleapis.com/v1beta/models/g:streamGenerateContent", "error.status", "PERMISSION_DENIED"},
		{"POST https://llm.example/v1/models/g:generateContent", "error.status", "PERMISSION_DENIED"},
	} {
		r := request(t, c.request)
		r.Header = map[string][]string{"Accept": {"text/event-stream"}}
		got := p.Refusal(p.Decide(&r), &r)
		var body any
		if err := json.Unmarshal(got.Body, &body); err != nil || got.Status != 403 || got.Header["X-Should-Retry"] != "false" {
			t.Fatalf("%s: %+v %v", c.request, got, err)
		}
		message, _ := field(body, "error.message").(string)
		if field(body, c.path) != c.want || !strings.Contains(message, RuleDefault) || field(body, "capsem.rule") != RuleDefault {
			t.Errorf("%s: %s", c.request, got.Body)
		}
	}
	r := request(t, "GET https://x.com/v1/messages")
	if got := p.Refusal(p.Decide(&r), &r); got.Header["X-Should-Retry"] != "" {
		t.Error("a page is taken for a model")
	}
}

func TestARefusalIsBoundedAndCannotBeSplit(t *testing.T) {
	var rules strings.Builder
	for i := range 50 {
		rules.WriteString(strings.ReplaceAll(rule("allow", "hosts = [\"x.com\"]\npaths = [\"/"+strings.Repeat("p", 900)+"\"]\nmin_body = "+string(rune('1'+i%9))), "id = \"allow\"", "id = \"a"+strings.Repeat("i", i)+"\""))
	}
	p := compiledFrom(t, "user", rules.String())
	r := request(t, "GET https://x.com/")
	r.VM, r.Path = "a\r\nb", "/"+strings.Repeat("é\r\n", 5000)
	got := p.Refusal(p.Decide(&r), &r)
	if len(got.Body) > 8192 || !json.Valid(got.Body) {
		t.Errorf("%d bytes", len(got.Body))
	}
	for k, v := range got.Header {
		if strings.ContainsAny(v, "\r\n") {
			t.Errorf("%s: %q", k, v)
		}
	}
}
