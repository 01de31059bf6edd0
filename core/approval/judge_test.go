package approval

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"capsem/core/policy"
	"capsem/core/proto"
)

const asksX = `hosts = ["x.test"]`

func (g *rig) judge(t *testing.T, j *Judge, req *policy.Request) chan policy.Verdict {
	t.Helper()
	out := make(chan policy.Verdict, 1)
	ctx := WithProcess(t.Context(), &proto.ProcessClaim{PID: 7, Name: "curl", CommandLine: "curl -d @secret", Parents: []string{"bash"}})
	go func() { out <- j.Judge(ctx, req) }()
	return out
}

func TestJudgeHoldsOnlyWhatIsAsked(t *testing.T) {
	g := newRig(t, nil)
	j := NewJudge(compiled(t, "user", rule("a", "allow", `hosts = ["ok.test"]`)+rule("q", "ask", asksX)), g.Board)
	for url, want := range map[string]policy.Effect{"https://ok.test/": policy.Allow, "https://other.test/": policy.Deny} {
		if v := j.Judge(t.Context(), request(t, "GET", url)); v.Effect != want {
			t.Errorf("%s: %+v", url, v)
		}
	}
	lookup := &policy.Request{Host: "x.test", Scheme: "dns"}
	if v := j.Judge(t.Context(), lookup); v.Effect != policy.Ask {
		t.Errorf("a lookup: %+v", v)
	}
	if v := j.Possible(&policy.Request{Host: "x.test", Port: 443}); v.Effect != policy.Ask {
		t.Errorf("a connection: %+v", v)
	}
	if n := len(g.journal.all()); n != 0 {
		t.Fatalf("%d things were asked", n)
	}
	for answer, want := range map[string]policy.Effect{Once: policy.Allow, Deny: policy.Deny} {
		out := g.judge(t, j, request(t, "POST", "https://x.test/a?b=1"))
		q := g.waitFor(t, 1, 1)[0]
		if q.URL != "https://x.test/a?b=1" || q.Rule != "q" || q.Layer != "user" || q.Process.CommandLine != "curl -d @secret" || q.Process.Parents[0] != "bash" {
			t.Errorf("%+v", q)
		}
		if _, _, err := g.Answer(q.ID, Answer{Answer: answer, By: "cli"}); err != nil {
			t.Fatal(err)
		}
		if v := <-out; v.Effect != want || v.RuleID != "q" || !strings.Contains(v.Reason, "owner") {
			t.Errorf("%s: %+v", answer, v)
		}
	}
}

func TestTimeoutIsDeny(t *testing.T) {
	g := newRig(t, nil)
	j := NewJudge(compiled(t, "user", rule("q", "ask", asksX)), g.Board)
	out := g.judge(t, j, request(t, "GET", "https://x.test/"))
	g.waitFor(t, 1, 1)
	g.clock.move(DefaultTimeout)
	if v := <-out; v.Effect != policy.Deny || !strings.Contains(v.Reason, "did not answer in 2m0s") {
		t.Fatalf("%+v", v)
	}
}

func TestReloadDecidesWhatIsHeld(t *testing.T) {
	asks := rule("q", "ask", asksX)
	for _, c := range []struct {
		name string
		then []string
		want policy.Effect // 0: is still asked
		rule string
	}{
		{"allowed now", []string{"user", rule("new", "allow", asksX)}, policy.Allow, "new"},
		{"denied now", []string{"corp", rule("no", "deny", asksX), "user", asks}, policy.Deny, "no"},
		{"no rule any more", []string{"user", ""}, policy.Deny, policy.RuleDefault},
		{"the same rule", []string{"user", asks + rule("more", "allow", `hosts = ["y.test"]`)}, 0, "q"},
		{"another rule", []string{"user", rule("q2", "ask", asksX)}, 0, "q2"},
		{"the rule of another layer", []string{"corp", asks}, 0, "q"},
		{"the VM asks too", []string{"user", rule("new", "allow", asksX), "vm", rule("mine", "ask", asksX)}, 0, "mine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, nil)
			j := NewJudge(compiled(t, "user", asks), g.Board)
			out := g.judge(t, j, request(t, "GET", "https://x.test/"))
			before := g.waitFor(t, 1, 1)[0]
			p := compiled(t, c.then...)
			j.Reload(p)
			if j.Policy() != p {
				t.Fatal("another policy is in force")
			}
			if c.want != 0 {
				if v := <-out; v.Effect != c.want || v.RuleID != c.rule {
					t.Fatalf("%+v", v)
				}
				return
			}
			var q Question
			for q.Rule != c.rule || c.name == "the rule of another layer" && q.Layer != "corp" {
				q = g.waitFor(t, 1, 1)[0]
			}
			if (q.ID == before.ID) != (c.name == "the same rule") {
				t.Errorf("%+v, then %+v", before, q)
			}
			if _, _, err := g.Answer(q.ID, Answer{Answer: Once}); err != nil {
				t.Fatal(err)
			}
			if v := <-out; v.Effect != policy.Allow || v.RuleID != c.rule {
				t.Fatalf("%+v", v)
			}
		})
	}
}

func TestAReloadTellsEqualQuestionsApart(t *testing.T) {
	// What is shown is the same, but a header decides under the new policy.
	g := newRig(t, nil)
	j := NewJudge(compiled(t, "user", rule("q", "ask", asksX)), g.Board)
	plain, marked := request(t, "GET", "https://x.test/"), request(t, "GET", "https://x.test/")
	marked.Header = map[string][]string{"X-Mark": {"yes"}}
	one, two := g.judge(t, j, plain), g.judge(t, j, marked)
	g.waitFor(t, 1, 2)
	j.Reload(compiled(t, "user", rule("m", "allow", asksX+"\nheaders = ['x-mark: yes']")+rule("q", "ask", asksX)))
	if v := <-two; v.Effect != policy.Allow || v.RuleID != "m" {
		t.Fatalf("%+v", v)
	}
	if _, _, err := g.Answer(g.waitFor(t, 1, 1)[0].ID, Answer{Answer: Deny}); err != nil {
		t.Fatal(err)
	}
	if v := <-one; v.Effect != policy.Deny {
		t.Fatalf("%+v", v)
	}
}

func TestASessionDoesNotOutliveADeny(t *testing.T) {
	g := newRig(t, nil)
	j := NewJudge(compiled(t, "user", rule("q", "ask", asksX)), g.Board)
	out := g.judge(t, j, request(t, "GET", "https://x.test/"))
	if _, _, err := g.Answer(g.waitFor(t, 1, 1)[0].ID, Answer{Answer: Session}); err != nil {
		t.Fatal(err)
	}
	<-out
	if v := j.Judge(t.Context(), request(t, "GET", "https://x.test/")); v.Effect != policy.Allow {
		t.Fatalf("%+v", v)
	}
	j.Reload(compiled(t, "corp", rule("no", "deny", asksX), "user", rule("q", "ask", asksX)))
	if v := j.Judge(t.Context(), request(t, "GET", "https://x.test/")); v.Effect != policy.Deny || v.RuleID != "no" {
		t.Fatalf("%+v", v)
	}
}

func TestAVerdictNamesTheQuestionItWasHeldFor(t *testing.T) {
	g := newRig(t, nil)
	j := NewJudge(compiled(t, "user", rule("q", "ask", asksX)), g.Board)
	req := request(t, "GET", "https://x.test/")
	out := g.judge(t, j, req)
	id := g.waitFor(t, 1, 1)[0].ID
	if _, _, err := g.Answer(id, Answer{Answer: Session}); err != nil {
		t.Fatal(err)
	}
	first := <-out
	if first.AskID != id {
		t.Errorf("%+v, not %s", first, id)
	}
	if v := j.Continue(t.Context(), req, first); v.AskID != id {
		t.Errorf("gone on with: %+v", v)
	}
	if v := j.Judge(t.Context(), req); v.AskID != id {
		t.Errorf("let through by the session: %+v", v)
	}
	other := request(t, "GET", "https://x.test/other")
	out = g.judge(t, j, other)
	id = g.waitFor(t, 1, 1)[0].ID
	j.Reload(compiled(t, "user", rule("no", "deny", asksX)))
	if v := <-out; v.Effect != policy.Deny || v.AskID != id {
		t.Errorf("decided by a reload: %+v", v)
	}
	if v := j.Judge(t.Context(), other); v.AskID != "" {
		t.Errorf("never asked: %+v", v)
	}
}

func TestContinueDoesNotAskTwice(t *testing.T) {
	g := newRig(t, nil)
	j := NewJudge(compiled(t, "user", rule("q", "ask", asksX+"\ncidr = ['127.0.0.0/8']")), g.Board)
	req := request(t, "GET", "https://x.test/")
	out := g.judge(t, j, req)
	if _, _, err := g.Answer(g.waitFor(t, 1, 1)[0].ID, Answer{Answer: Once}); err != nil {
		t.Fatal(err)
	}
	v := <-out
	for addr, want := range map[string]policy.Effect{"127.0.0.1": policy.Allow, "93.184.216.34": policy.Allow, "10.0.0.1": policy.Deny} {
		dial := *req
		dial.Addr = netip.MustParseAddr(addr)
		if got := j.Continue(t.Context(), &dial, v); got.Effect != want {
			t.Errorf("%s: %+v", addr, got)
		}
	}
	j.Reload(compiled(t, "user", rule("q2", "ask", asksX)))
	again := make(chan policy.Verdict, 1)
	go func() { again <- j.Continue(t.Context(), req, v) }()
	if q := g.waitFor(t, 1, 1)[0]; q.Rule != "q2" {
		t.Fatalf("%+v", q)
	}
	g.Close()
	if v := <-again; v.Effect != policy.Deny {
		t.Fatalf("%+v", v)
	}
}

func TestMCPCallsAndConnectionsAreAskedToo(t *testing.T) {
	g := newRig(t, nil)
	j := NewJudge(compiled(t, "user", rule("tool", "ask", `mcp_server = ["git*"]`)+rule("ssh", "ask", "hosts = ['x.test']\nschemes = ['tcp']\nports = [22]")), g.Board)
	for _, c := range []struct {
		req  policy.Request
		what string
	}{
		{policy.Request{VM: "vm1", MCPServer: "git*hub", MCPTool: "push"}, "tool push of MCP server git*hub"},
		{policy.Request{VM: "vm1", Host: "x.test", Port: 22, Scheme: "tcp"}, "any connection to tcp://x.test:22"},
	} {
		out := g.judge(t, j, &c.req)
		q := g.waitFor(t, 1, 1)[0]
		if len(q.Choices) != 4 || !strings.Contains(q.Choices[2].Allows, c.what) {
			t.Fatalf("%+v", q.Choices)
		}
		_, r, err := g.Answer(q.ID, Answer{Answer: Always})
		if err != nil {
			t.Fatal(err)
		}
		<-out
		text, err := policy.Format([]policy.Rule{*r})
		if err != nil {
			t.Fatal(err)
		}
		p := compiled(t, "user", text)
		other := c.req
		other.MCPTool, other.Port = other.MCPTool+"x", 23
		if v := p.Decide(&c.req); v.Effect != policy.Allow {
			t.Errorf("%s does not allow it", text)
		}
		if v := p.Decide(&other); v.Effect != policy.Deny {
			t.Errorf("%s allows %s", text, other.String())
		}
	}
}

func TestReloadsWhileManyAsk(t *testing.T) {
	g := newRig(t, nil)
	asks := compiled(t, "user", rule("q", "ask", asksX))
	j := NewJudge(asks, g.Board)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			v := j.Judge(t.Context(), request(t, "GET", fmt.Sprintf("https://x.test/%d", i%20)))
			if v.Effect != policy.Allow {
				t.Errorf("%+v", v)
			}
		})
	}
	for range 20 {
		j.Reload(asks)
	}
	j.Reload(compiled(t, "user", rule("a", "allow", asksX)))
	all.Wait()
	if n := len(g.List()); n != 0 {
		t.Fatalf("%d are left", n)
	}
}
