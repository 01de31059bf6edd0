package host_test

import (
	"context"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp"
	"capsem/core/mcp/sandbox"
)

func TestWhatServersAskForIsJudgedAsCallsAre(t *testing.T) {
	if err := sandbox.Supported(); err != nil {
		t.Fatal(err)
	}
	d := program(t, "test", "all")
	d.Elicitation = true
	for _, c := range []struct {
		name, rules, answer    string
		ok                     bool
		decision, rule, reason string
	}{
		{"answered", "", "blue", true, "allowed", "", ""},
		{"an answer with a secret in it", "", "my secret-of-the-owner", false, "denied", "detect/test", "a secret was found"},
		{"a question that the policy does not let through", `
[[rule]]
id = "no-questions"
effect = "deny"
mcp_server = ["test"]
mcp_tool = ["elicitation/create"]
reason = "it asks too much"
`, "blue", false, "denied", "no-questions", "it asks too much"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.rules, d)
			r.secret = "secret-of-the-owner"
			r.up("test", true)
			if _, err := r.pins.Approve("test", ""); err != nil {
				t.Fatal(err)
			}
			asked := false
			s := r.clientOf("2025-11-25", &sdk.ClientOptions{
				ElicitationHandler: func(context.Context, *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
					asked = true
					return &sdk.ElicitResult{Action: "accept", Content: map[string]any{"color": c.answer}}, nil
				},
			})
			eventually(t, func() bool { return len(names(t, s)) > 15 })
			got, err := call(t, s, "test__elicit", nil)
			if (err == nil) != c.ok || strings.Contains(got, c.answer) != c.ok {
				t.Errorf("the server has %q, %v", got, err)
			}
			if wants := c.rule != "no-questions"; asked != wants {
				t.Errorf("the agent was asked: %v", asked)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			found := false
			for _, one := range r.calls {
				if one.Method == "elicitation/create" {
					found = one.Decision == c.decision && (c.rule == "" || one.Rule == c.rule) && strings.Contains(one.Error, c.reason) && one.Process.Name == "agent"
				}
			}
			if !found {
				t.Errorf("on record is %+v", r.calls)
			}
		})
	}
}

func TestASpellingThatThePolicyDoesNotSeeIsRefused(t *testing.T) {
	r, s := withServer(t, "", nil)
	before := len(r.calls)
	for tool, want := range map[string]string{"local__echo": `is "text" meant`, "test__nothing": "no such tool"} {
		if _, err := call(t, s, tool, args{"TEXT": "x"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", tool, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := r.calls[before:]; len(got) != 2 || got[0].Decision != "error" || got[1].Decision != "error" {
		t.Errorf("on record is %+v", got)
	}
}

func TestErrorsDoNotTellTheURLOfAServer(t *testing.T) {
	r := newRig(t, "", mcp.Definition{Name: "web", URL: "http://127.0.0.1:1/mcp?key=of-the-owner"})
	if o := r.up("web", false); o.Error == "" || strings.Contains(o.Error, "of-the-owner") {
		t.Errorf("it is down because of %q", o.Error)
	}
}
