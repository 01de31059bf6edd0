package approval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"capsem/core/fault"
	"capsem/core/policy"
)

// put asks in a goroutine of its own.
func (g *rig) put(ctx context.Context, q Question) chan Outcome {
	out := make(chan Outcome, 1)
	go func() { out <- g.Ask(ctx, q) }()
	return out
}

func TestAnAnswerEndsTheWait(t *testing.T) {
	for answer, want := range map[string]Status{Once: Approved, Session: Approved, Always: Approved, Deny: Denied} {
		g := newRig(t, nil)
		out := g.put(t.Context(), asked(t, "vm1", "GET", "https://x.test/a?b=c"))
		q := g.waitFor(t, 1, 1)[0]
		g.clock.move(7 * time.Second)
		got, r, err := g.Answer(q.ID, Answer{Answer: answer, By: "cli"})
		if err != nil || got.ID != q.ID || (r != nil) != (answer == Always) {
			t.Fatalf("%s: %v, %v", answer, r, err)
		}
		if o := <-out; o.Status != want || o.Scope != answer || o.By != "cli" || o.Waited != 7*time.Second {
			t.Errorf("%s: %+v", answer, o)
		}
		if _, _, err := g.Answer(q.ID, Answer{Answer: Once}); !fault.Is(err, fault.NotFound) {
			t.Errorf("a question is answered twice: %v", err)
		}
		wanted := []string{"asked GET https://x.test/a?b=c", fmt.Sprintf("%s %s GET https://x.test/a?b=c by cli", want, answer)}
		if got := g.journal.all(); !slices.Equal(got, wanted) {
			t.Errorf("%s: recorded %q", answer, got)
		}
	}
}

func TestNoAnswerIsTimeout(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Timeout = time.Minute })
	first := g.put(t.Context(), asked(t, "vm1", "GET", "https://x.test/"))
	g.waitFor(t, 1, 1)
	g.clock.move(59 * time.Second)
	second := g.put(t.Context(), asked(t, "vm1", "GET", "https://x.test/"))
	g.waitFor(t, 1, 2)
	g.clock.move(time.Second)
	for _, out := range []chan Outcome{first, second} {
		if o := <-out; o.Status != TimedOut || o.Waited != time.Minute {
			t.Errorf("%+v", o)
		}
	}
	if n := len(g.List()); n != 0 {
		t.Errorf("%d questions are left", n)
	}
}

func TestARequestThatIsGivenUpLeaves(t *testing.T) {
	g := newRig(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	first := g.put(ctx, asked(t, "vm1", "GET", "https://x.test/"))
	second := g.put(t.Context(), asked(t, "vm1", "GET", "https://x.test/"))
	g.waitFor(t, 1, 2)
	cancel()
	if o := <-first; o.Status != Left {
		t.Fatalf("%+v", o)
	}
	q := g.waitFor(t, 1, 1)[0]
	if _, _, err := g.Answer(q.ID, Answer{Answer: Once}); err != nil {
		t.Fatal(err)
	}
	if o := <-second; o.Status != Approved {
		t.Fatalf("%+v", o)
	}
	ctx, cancel = context.WithCancel(t.Context())
	third := g.put(ctx, asked(t, "vm1", "GET", "https://x.test/"))
	g.waitFor(t, 1, 1)
	cancel()
	<-third
	g.waitFor(t, 0, 0)
}

func TestOnlyEqualRequestsShareAQuestion(t *testing.T) {
	g := newRig(t, nil)
	base := func() Question { return asked(t, "vm1", "POST", "https://x.test/a?q=1") }
	n := 0
	for _, change := range []func(*Question){
		func(*Question) {},
		func(q *Question) { q.VM = "vm2" },
		func(q *Question) { q.Method = "PUT" },
		func(q *Question) { q.URL = "https://x.test/a?q=2" },
		func(q *Question) { q.Port = 8443 },
		func(q *Question) { q.Size = 99 },
		func(q *Question) { q.Rule = "other" },
		func(q *Question) { q.Layer = "corp" },
		func(q *Question) { q.Process.CommandLine = "curl" },
		func(q *Question) { q.MCPTool = "x" },
	} {
		for range 2 { // the second of a kind has another number, and joins
			q := base()
			change(&q)
			n++
			q.Process.PID = int32(n)
			g.put(t.Context(), q)
		}
	}
	g.waitFor(t, n/2, n)
}

func TestSessionCoversWhatWasShown(t *testing.T) {
	for _, c := range []struct {
		reach, vm, method, url string
		change                 func(*Question)
		covered                bool
	}{
		{ReachPath, "vm1", "POST", "https://x.test/a?q=2", nil, true},
		{ReachPath, "vm1", "POST", "https://x.test/a", func(q *Question) { q.Size, q.Process.Name = 1<<30, "other" }, true},
		{ReachPath, "vm1", "POST", "https://x.test/b", nil, false},
		{ReachPath, "vm1", "POST", "https://x.test/a/b", nil, false},
		{ReachPath, "vm1", "GET", "https://x.test/a", nil, false},
		{ReachPath, "vm2", "POST", "https://x.test/a", nil, false},
		{ReachPath, "vm1", "POST", "http://x.test/a", nil, false},
		{ReachPath, "vm1", "POST", "https://x.test:444/a", nil, false},
		{ReachPath, "vm1", "POST", "https://y.x.test/a", nil, false},
		{ReachPath, "vm1", "POST", "https://x.test/a", func(q *Question) { q.Rule = "other" }, false},
		{ReachPath, "vm1", "POST", "https://x.test/a", func(q *Question) { q.Layer = "corp" }, false},
		{ReachHost, "vm1", "POST", "https://x.test/anything?q=2", nil, true},
		{ReachHost, "vm1", "GET", "https://x.test/a", nil, false},
		{ReachHost, "vm1", "POST", "https://y.test/a", nil, false},
		{ReachHost, "vm2", "POST", "https://x.test/a", nil, false},
	} {
		g := newRig(t, nil)
		out := g.put(t.Context(), asked(t, "vm1", "POST", "https://x.test/a?q=1"))
		if _, _, err := g.Answer(g.waitFor(t, 1, 1)[0].ID, Answer{Answer: Session, Reach: c.reach, By: "tray"}); err != nil {
			t.Fatal(err)
		}
		<-out
		q := asked(t, c.vm, c.method, c.url)
		if c.change != nil {
			c.change(&q)
		}
		out = g.put(t.Context(), q)
		if !c.covered {
			g.waitFor(t, 1, 1)
			continue
		}
		if o := <-out; o.Status != Approved || o.Scope != Session || o.By != "tray" {
			t.Errorf("%+v: %+v", c, o)
		}
		g.Forget("vm1")
		g.put(t.Context(), q)
		g.waitFor(t, 1, 1)
	}
}

func TestOnceAndDenyAreNotRemembered(t *testing.T) {
	for _, answer := range []string{Once, Deny} {
		g := newRig(t, nil)
		for range 2 {
			out := g.put(t.Context(), asked(t, "vm1", "GET", "https://x.test/"))
			if _, _, err := g.Answer(g.waitFor(t, 1, 1)[0].ID, Answer{Answer: answer}); err != nil {
				t.Fatal(err)
			}
			<-out
		}
	}
}

func TestQuestionsAreBounded(t *testing.T) {
	g := newRig(t, func(c *Config) { c.Pending = 3 })
	for i := range 3 {
		g.put(t.Context(), asked(t, "vm1", "GET", fmt.Sprintf("https://x.test/%d", i)))
	}
	g.waitFor(t, 3, 3)
	if o := g.Ask(t.Context(), asked(t, "vm1", "GET", "https://x.test/more")); o.Status != Refused {
		t.Fatalf("%+v", o)
	}
	g.put(t.Context(), asked(t, "vm2", "GET", "https://x.test/0"))
	for range maxWaiters - 1 {
		g.put(t.Context(), asked(t, "vm1", "GET", "https://x.test/0"))
	}
	pending := g.waitFor(t, 4, 3+maxWaiters)
	if o := g.Ask(t.Context(), asked(t, "vm1", "GET", "https://x.test/0")); o.Status != Refused {
		t.Fatalf("%+v", o)
	}
	if _, _, err := g.Answer(pending[1].ID, Answer{Answer: Deny}); err != nil {
		t.Fatal(err)
	}
	g.put(t.Context(), asked(t, "vm1", "GET", "https://x.test/more"))
	for range 100 {
		if slices.ContainsFunc(g.List(), func(q Question) bool { return q.Path == "/more" }) {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatal("a place that became free is not used")
}

func TestForgetAndCloseEndQuestions(t *testing.T) {
	g := newRig(t, nil)
	one, two := g.put(t.Context(), asked(t, "vm1", "GET", "https://x.test/")), g.put(t.Context(), asked(t, "vm2", "GET", "https://x.test/"))
	g.waitFor(t, 2, 2)
	g.Forget("vm1")
	if o := <-one; o.Status != Gone {
		t.Fatalf("%+v", o)
	}
	g.waitFor(t, 1, 1)
	states, err := g.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	if o := <-two; o.Status != Gone {
		t.Fatalf("%+v", o)
	}
	for range states { // ends
	}
	if o := g.Ask(t.Context(), asked(t, "vm2", "GET", "https://x.test/")); o.Status != Gone {
		t.Fatalf("%+v", o)
	}
	if _, err := g.Watch(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
}

func TestASlowWatcherSeesTheNewest(t *testing.T) {
	g := newRig(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	states, err := g.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		g.put(t.Context(), asked(t, "vm1", "GET", fmt.Sprintf("https://x.test/%d", i)))
	}
	g.waitFor(t, 20, 20)
	if s := <-states; len(s.Pending) != 20 || s.Revision != 20 {
		t.Fatalf("%d questions at revision %d", len(s.Pending), s.Revision)
	}
	cancel()
	for range states { // ends
	}
	for range maxWatchers {
		if _, err := g.Watch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.Watch(t.Context()); !fault.Is(err, fault.LimitReached) {
		t.Fatal(err)
	}
}

func TestAnswersMustBeChoices(t *testing.T) {
	g := newRig(t, nil)
	long := asked(t, "vm1", "GET", "https://x.test/"+strings.Repeat("a", 3000))
	g.put(t.Context(), long)
	q := g.waitFor(t, 1, 1)[0]
	if !q.Cut || len(q.URL) > maxURL+3 {
		t.Errorf("%d bytes, cut is %v", len(q.URL), q.Cut)
	}
	for _, a := range []Answer{{}, {Answer: "yes"}, {Answer: Session}, {Answer: Always}, {Answer: Once, Reach: ReachHost}, {Answer: Session, Reach: "world"}} {
		if _, _, err := g.Answer(q.ID, a); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", a, err)
		}
	}
	if _, _, err := g.Answer(q.ID, Answer{Answer: Once}); err != nil {
		t.Error(err)
	}
}

func TestWhatIsShownCannotDriveATerminal(t *testing.T) {
	g := newRig(t, nil)
	q := asked(t, "vm1", "GET", "https://x.test/")
	q.Process = Process{Name: "a\x1b[2Jb", CommandLine: "evil \u202etxt.exe\r\n\tok" + strings.Repeat("x", 10000), Parents: []string{"\x07"}}
	q.Host = "x\u200b.test"
	g.put(t.Context(), q)
	text, err := json.Marshal(g.waitFor(t, 1, 1)[0])
	if err != nil || strings.ContainsAny(string(text), "\u202e\u200b") || strings.Contains(string(text), `\u001b`) || strings.Contains(string(text), `\r`) || len(text) > 8000 {
		t.Fatalf("%v: %.300s", err, text)
	}
}

func TestGrantsAreBounded(t *testing.T) {
	g := newRig(t, nil)
	g.granted["vm1"] = maxGrants
	out := g.put(t.Context(), asked(t, "vm1", "GET", "https://x.test/"))
	q := g.waitFor(t, 1, 1)[0]
	if _, _, err := g.Answer(q.ID, Answer{Answer: Session}); !fault.Is(err, fault.LimitReached) {
		t.Fatal(err)
	}
	if _, _, err := g.Answer(q.ID, Answer{Answer: Once}); err != nil {
		t.Fatal(err)
	}
	<-out
}

func TestManyAskAndAnswerAtOnce(t *testing.T) {
	g := newRig(t, nil)
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 100 {
		all.Go(func() {
			own, leave := context.WithTimeout(ctx, time.Duration(i%5+1)*10*time.Millisecond)
			defer leave()
			g.Ask(own, asked(t, fmt.Sprintf("vm%d", i%4), "GET", fmt.Sprintf("https://x.test/%d", i%10)))
		})
	}
	for range 4 {
		all.Go(func() {
			for i := range 50 {
				for _, q := range g.List() {
					_, _, err := g.Answer(q.ID, Answer{Answer: []string{Once, Deny, Session}[i%3]})
					if err != nil && !fault.Is(err, fault.NotFound) {
						t.Error(err)
					}
				}
				g.clock.move(time.Second)
				g.Reconsider()
				g.Forget("vm3")
			}
		})
	}
	all.Wait()
	cancel()
	if n := len(g.List()); n != 0 {
		t.Errorf("%d questions are left", n)
	}
	if len(g.byKey)+len(g.pending)+len(g.clock.timers) != 0 {
		t.Error("something of them is left")
	}
	starts, ends := 0, 0
	for _, line := range g.journal.all() {
		if strings.HasPrefix(line, "asked") {
			starts++
		} else {
			ends++
		}
	}
	if starts != ends || starts == 0 {
		t.Errorf("%d asked, %d ended", starts, ends)
	}
}

var errNever = errors.New("never")

func TestAlwaysGivesANarrowRule(t *testing.T) {
	for _, c := range []struct {
		name, layer, body, url string
		reach                  string
		opens, not             string
		err                    error
	}{
		{"path", "user", `hosts = ["x.test"]`, "https://x.test/a/*/b?q=1", ReachPath, "https://x.test/a/*/b", "https://x.test/a/c/b", nil},
		{"host", "user", `hosts = ["x.test"]`, "https://x.test/a", ReachHost, "https://x.test/other", "https://x.test:8443/a", nil},
		{"defaults", "defaults", `hosts = ["x.test"]`, "https://x.test/a%20b", ReachPath, "https://x.test/a%20b", "https://x.test/a", nil},
		{"another port", "user", "hosts = ['x.test']\nports = [8443]", "https://x.test:8443/a", ReachPath, "https://x.test:8443/a", "https://x.test/a", nil},
		{"corp asks", "corp", `hosts = ["x.test"]`, "https://x.test/a", ReachPath, "", "", errNever},
		{"the rule looks at the query", "user", "hosts = ['x.test']\nquery = ['mode=a']", "https://x.test/a?mode=a", ReachPath, "", "", errNever},
		{"the rule looks at the process", "user", "hosts = ['x.test']\nprocess = ['curl']", "https://x.test/a", ReachPath, "", "", errNever},
		{"the rule looks at the path", "user", "hosts = ['x.test']\npaths = ['/a/**']", "https://x.test/a/b", ReachPath, "https://x.test/a/b", "https://x.test/a/c", nil},
		{"the host where the rule looks at the path", "user", "hosts = ['x.test']\npaths = ['/a/**']", "https://x.test/a/b", ReachHost, "", "", errNever},
		{"a path of two readings", "user", `hosts = ["x.test"]`, "https://x.test/a%2fb", ReachPath, "", "", errNever},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, nil)
			asking := rule("asks", "ask", c.body)
			j := NewJudge(compiled(t, c.layer, asking), g.Board)
			req := request(t, "GET", c.url)
			req.Process = "curl"
			verdict := make(chan policy.Verdict, 1)
			go func() { verdict <- j.Judge(t.Context(), req) }()
			_, r, err := g.Answer(g.waitFor(t, 1, 1)[0].ID, Answer{Answer: Always, Reach: c.reach})
			if c.err != nil {
				if !fault.Is(err, fault.Invalid) {
					t.Fatalf("%+v, %v", r, err)
				}
				return
			}
			if v := <-verdict; err != nil || v.Effect != policy.Allow {
				t.Fatalf("%+v, %v", v, err)
			}
			text, err := policy.Format([]policy.Rule{*r})
			if err != nil {
				t.Fatal(err)
			}
			user := text + "\n"
			if c.layer == "user" {
				user += asking
				asking = ""
			}
			p := compiled(t, "user", user, "defaults", asking)
			for url, want := range map[string]policy.Effect{c.opens: policy.Allow, c.not: policy.Ask} {
				if c.name == "another port" && url == c.not {
					want = policy.Deny
				}
				if v := p.Decide(request(t, "GET", url)); v.Effect != want {
					t.Errorf("%s is %s with\n%s", url, v.Effect, text)
				}
			}
			if v := p.Decide(request(t, "POST", c.opens)); v.Effect == policy.Allow {
				t.Errorf("another method is allowed with\n%s", text)
			}
		})
	}
}
