package policy

import (
	"fmt"
	"testing"
)

// thousand is a policy of 1,000 rules without "when". Its kind says how they are spread.
func thousand(b testing.TB, kind string) *Policy {
	b.Helper()
	s := &Set{Layer: LayerUser}
	for i := range 1000 {
		r := Rule{ID: fmt.Sprint("r", i), Effect: Allow, Reason: "r"}
		switch kind {
		case "hosts":
			r.Hosts = []HostPattern{HostPattern(fmt.Sprintf([]string{"h%d.example.com", "*.h%d.example.com", "**.h%d.example.com"}[i%3], i))}
			r.Methods, r.Paths = []string{"GET", "POST"}, []string{"/v1/**", fmt.Sprintf("/only/%d", i)}
		case "paths":
			r.Hosts, r.Methods, r.Paths = []HostPattern{"api.example.com"}, []string{"GET"}, []string{fmt.Sprintf("/repos/team/project-%d/**", i)}
		case "any host":
			r.Effect, r.Methods, r.Paths = Deny, []string{"POST"}, []string{fmt.Sprintf("/**/secret-%d", i)}
		}
		s.Rules = append(s.Rules, r)
	}
	p, err := Compile(s)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func BenchmarkDecide(b *testing.B) {
	for _, c := range []struct{ name, kind, request string }{
		{"1000 rules by host", "hosts", "GET https://a.b.h998.example.com/v1/messages"},
		{"1000 rules by host, refused", "hosts", "GET https://a.b.c.nowhere.example.org/v1/messages"},
		{"1000 rules on one host, the last", "paths", "GET https://api.example.com/repos/team/project-999/issues"},
		{"1000 rules for any host, other method", "any host", "GET https://api.example.com/repos/team/issues"},
		{"1000 rules for any host, none matches", "any host", "POST https://api.example.com/repos/team/issues"},
	} {
		p := thousand(b, c.kind)
		r := request(b, c.request)
		r.Process, r.Header = "git", map[string][]string{"Accept": {"*/*"}, "User-Agent": {"x"}, "X-Request-Id": {"7"}}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(&r)
			}
		})
	}
}

func BenchmarkPossible(b *testing.B) {
	p, r := thousand(b, "hosts"), request(b, "DNS a.b.h998.example.com")
	b.ReportAllocs()
	for b.Loop() {
		p.Possible(&r)
	}
}

func BenchmarkWhen(b *testing.B) {
	p := compiledFrom(b, "user", rule("allow", "hosts = [\"x.com\"]\nwhen = 'method == \"GET\" && path.startsWith(\"/a\")'"))
	r := request(b, "GET https://x.com/a/b")
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(&r)
	}
}

func BenchmarkCompile(b *testing.B) {
	s := &Set{Layer: LayerUser}
	for _, c := range thousand(b, "hosts").base.rules {
		s.Rules = append(s.Rules, *c.rule)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(s); err != nil {
			b.Fatal(err)
		}
	}
}

func TestADecisionAllocatesNothing(t *testing.T) {
	p, r := thousand(t, "hosts"), request(t, "GET https://a.b.h998.example.com/v1/messages")
	if n := testing.AllocsPerRun(100, func() { p.Decide(&r) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
