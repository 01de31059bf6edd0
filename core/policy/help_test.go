package policy

import (
	"strings"
	"testing"
)

// compiledFrom makes a policy of texts, the layer of each before it: "user", text, "corp", text.
func compiledFrom(t testing.TB, layered ...string) *Policy {
	t.Helper()
	var sets []*Set
	for i := 0; i < len(layered); i += 2 {
		s, err := Parse(layered[i+1], layerNamed(t, layered[i]))
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, s)
	}
	p, err := Compile(sets...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func layerNamed(t testing.TB, name string) Layer {
	t.Helper()
	for i, n := range layerNames {
		if i > 0 && n == name {
			return Layer(i)
		}
	}
	t.Fatalf("no layer %q", name)
	return 0
}

// rule makes a text of one rule with the effect as its id.
func rule(effect, body string) string {
	return "[[rule]]\nid = \"" + effect + "\"\neffect = \"" + effect + "\"\nreason = \"r\"\n" + body + "\n"
}

func request(t testing.TB, line string) Request {
	t.Helper()
	r, err := ParseRequest(line)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// decided is the verdict on a request, changed as wanted, in the form effect:id.
func decided(t testing.TB, p *Policy, line string, change func(r *Request)) string {
	t.Helper()
	r := request(t, line)
	if change != nil {
		change(&r)
	}
	v := p.Decide(&r)
	slow, _ := p.Explain(&r, false)
	if v.Effect != slow.Effect || v.RuleID != slow.RuleID || v.BodyLimit != slow.BodyLimit {
		t.Errorf("%s: %v by the index, %v without", line, v, slow)
	}
	return v.Effect.String() + ":" + strings.TrimPrefix(v.RuleID, "capsem:")
}
