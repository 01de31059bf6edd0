package policy

import (
	"strings"
	"testing"
)

func FuzzParse(f *testing.F) {
	f.Add(everything)
	f.Add(refusing)
	f.Add(`presets = ["claude", "github"]`)
	f.Add("[[rule]]\nid = 'a'\neffect = 'deny'\nwhen = 'path.matches(\"a*\")'")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text, LayerUser)
		if err != nil {
			return
		}
		again, err := Format(s.Rules)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) <= MaxText {
			if _, err := Parse(again, LayerUser); err != nil {
				t.Fatalf("%v: %q was written as %q", err, text, again)
			}
		}
		p, err := Compile(s)
		if err != nil {
			return // a "when" that means nothing
		}
		Lint(p)
		r := Request{Host: "x.com", Port: 443, Scheme: "https", Method: "GET", Path: "/a/%2e%2e/b", Header: map[string][]string{"X-A": {"b"}}}
		fast := p.Decide(&r)
		if slow, _ := p.Explain(&r, false); slow.Effect != fast.Effect || slow.RuleID != fast.RuleID {
			t.Fatalf("%+v and %+v", fast, slow)
		}
	})
}

func FuzzHost(f *testing.F) {
	for _, s := range []string{"x.com", "BÜCHER.example.", "[::1]", "0x7f.1", "xn--bcher-kva.example", "::ffff:1.2.3.4"} {
		f.Add(s, "**.x.com")
	}
	f.Fuzz(func(t *testing.T, host, pattern string) {
		normal, err := NormalHost(host)
		if err == nil {
			if again, err := NormalHost(normal); err != nil || again != normal {
				t.Fatalf("%q is %q is %q, %v", host, normal, again, err)
			}
		}
		p, err := ParseHostPattern(pattern)
		if err != nil {
			return
		}
		if again, err := ParseHostPattern(string(p)); err != nil || again != p {
			t.Fatalf("%q is %q is %q, %v", pattern, p, again, err)
		}
		if normal == "" {
			return
		}
		x, k := newHostIndex(), cursors{last: -1}
		x.add([]HostPattern{p}, 0)
		ip, _ := literal(normal)
		x.look(normal, ip, &k)
		if found := k.next() == 0; found != p.Match(normal) {
			t.Fatalf("%q, %q: the index says %v", p, normal, found)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e/a", "/a;x/..;/b", "/%252f", `/a\b`, "//", "/%25zz%2e"} {
		f.Add(s, "/a/**")
	}
	f.Fuzz(func(t *testing.T, path, pattern string) {
		r, err := readPath(path)
		if err == nil {
			if r.n == 0 {
				t.Fatalf("%q has no reading", path)
			}
			for i, form := range r.form[:r.n] {
				if !strings.HasPrefix(form, "/") || strings.Contains(form, "//") || strings.Contains(form+"/", "/../") || strings.Contains(form+"/", "/./") ||
					strings.ContainsAny(form, "\x00\r\n") || i > 0 && strings.Contains(form, `\`) {
					t.Fatalf("%q reads as %q", path, form)
				}
			}
		}
		g, err2 := compileGlob(pattern, true)
		if err != nil || err2 != nil {
			return
		}
		for _, form := range r.form[:r.n] {
			if g.match(form, false) && !g.match(form, true) {
				t.Fatalf("%q matches %q only when letter case counts", pattern, form)
			}
			if e, err := compileGlob(escapeGlob(form), true); err == nil && !e.match(form, false) {
				t.Fatalf("%q escaped does not match itself", form)
			}
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add("GET", "https://x.com/a?b=c", "X-A", "1", "q=1;r=2")
	f.Add("POST", "wss://[::1]:99/", "x-http-method-override", "DELETE", "")
	p := compiledFrom(f, "corp", everything, "user", refusing, "defaults", `presets = ["web-read", "github"]`)
	f.Fuzz(func(t *testing.T, method, url, header, value, query string) {
		r, err := ForURL(method, url)
		if err != nil {
			r = Request{Host: url, Method: method, Path: value, Scheme: "https", Port: 443}
		}
		r.Header, r.Query, r.VM = map[string][]string{header: {value, query}}, query, value
		fast := p.Decide(&r)
		if slow, _ := p.Explain(&r, false); slow.Effect != fast.Effect || slow.RuleID != fast.RuleID {
			t.Fatalf("%+v and %+v", fast, slow)
		}
		p.Possible(&r)
		for k, v := range p.Refusal(fast, &r).Header {
			if strings.ContainsAny(v, "\r\n") {
				t.Fatalf("%s: %q", k, v)
			}
		}
		if rules := Suggest([]Request{r}); len(rules) > 0 {
			if _, err := Compile(&Set{Layer: LayerUser, Rules: rules}); err != nil {
				t.Fatalf("%+v: %v", rules, err)
			}
		}
	})
}

func FuzzTable(f *testing.F) {
	f.Add("[[case]]\nrequest = 'GET https://x.com/a'\nexpect = 'allow'\nheaders = ['A: b']\nbody = '1KB'")
	f.Add("[[case]]\nrequest = 'MCP a b'\nexpect = 'deny'\nearly = true")
	p := compiledFrom(f, "user", refusing)
	f.Fuzz(func(t *testing.T, text string) {
		cases, err := ParseTable(text)
		if err == nil && len(RunTests(p, cases)) != len(cases) {
			t.Fatal("cases got lost")
		}
	})
}
