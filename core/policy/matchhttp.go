package policy

import "strings"

// matchHTTP compares what the head of an HTTP request says.
func (c *compiled) matchHTTP(f *facts, m *matched) {
	if !f.http {
		m.and(later, c.httpFacts())
		return
	}
	if !c.methods.empty() && !m.and(c.matchMethod(f), FactMethod) {
		return
	}
	if len(c.paths) > 0 && !m.and(c.matchPath(f), FactPath) {
		return
	}
	if len(c.query) > 0 && !m.and(c.matchQuery(f), FactQuery) {
		return
	}
	if len(c.headers) > 0 && !m.and(c.matchHeaders(f), FactHeader) {
		return
	}
	if c.rule.MinBody > 0 || c.rule.MaxBody > 0 {
		m.and(c.matchBody(f), FactBody)
	}
}

func (c *compiled) httpFacts() Fact {
	return c.conditions() & factsHTTP
}

// conditions are the facts that the rule depends on.
func (c *compiled) conditions() Fact {
	r := c.rule
	var out Fact
	for _, x := range []struct {
		has  bool
		fact Fact
	}{
		{len(r.Hosts) > 0, FactHost},
		{len(r.Ports) > 0, FactPort},
		{len(r.Schemes) > 0, FactScheme},
		{len(r.Methods) > 0, FactMethod},
		{len(r.Paths) > 0, FactPath},
		{len(r.Query) > 0, FactQuery},
		{len(r.Headers) > 0, FactHeader},
		{len(r.Process) > 0, FactProcess},
		{r.MinBody > 0 || r.MaxBody > 0, FactBody},
		{c.mcp, FactMCP},
		{len(r.DNSName) > 0, FactDNSName},
		{len(r.CIDR) > 0, FactAddr},
		{r.When != "", FactWhen},
	} {
		if x.has {
			out |= x.fact
		}
	}
	return out
}

// loosely says whether a condition must hold for one reading only, which makes doubt of it.
func (c *compiled) loosely() bool { return c.rule.Effect != Allow }

func (c *compiled) matchMethod(f *facts) outcome {
	all := c.methods.has(f.req.Method, false)
	some := all || c.loosely() && c.methods.has(f.req.Method, true)
	if f.override != "" {
		over := c.methods.has(f.override, false)
		some = some || over || c.loosely() && c.methods.has(f.override, true)
		all = all && over
	}
	return readingsOutcome(all, some)
}

func (c *compiled) matchPath(f *facts) outcome {
	all, some := true, false
	for _, form := range f.paths.form[:f.paths.n] {
		if anyGlob(c.paths, form, false) {
			some = true
			continue
		}
		all = false
		if c.loosely() {
			some = some || anyGlob(c.paths, form, true) || anyGlob(c.paths, strings.TrimSuffix(form, "/"), true)
		}
	}
	return readingsOutcome(all, some)
}

func (c *compiled) matchQuery(f *facts) outcome {
	f.parseQuery()
	worst := yes
	for i := range c.query {
		k := &c.query[i]
		all, some, found := true, false, false
		for _, p := range f.query {
			if p.key == k.key {
				ok := k.matches(p.value, false)
				all, some, found = all && ok, some || ok, true
			}
		}
		if !some && c.loosely() {
			for _, p := range f.loose {
				some = some || strings.EqualFold(p.key, k.key) && k.matches(p.value, true)
			}
		}
		worst = min(worst, readingsOutcome(all && found, some))
	}
	return worst
}

func (k *keyGlob) matches(value string, fold bool) bool {
	return k.any || k.value.match(value, fold)
}

func (c *compiled) matchHeaders(f *facts) outcome {
	worst := yes
	for i := range c.headers {
		k := &c.headers[i]
		all, some, found := true, false, false
		for name, values := range f.req.Header {
			if !strings.EqualFold(name, k.key) {
				continue
			}
			for _, v := range values {
				found = true
				ok := k.matches(strings.TrimSpace(v), false)
				all, some = all && ok, some || ok || c.loosely() && k.element(v)
			}
		}
		worst = min(worst, readingsOutcome(all && found, some))
	}
	return worst
}

// element looks for the pattern in one member of a list, as in "a, b".
func (k *keyGlob) element(value string) bool {
	for part := range strings.SplitSeq(value, ",") {
		if k.matches(strings.TrimSpace(part), true) {
			return true
		}
	}
	return k.matches(strings.TrimSpace(value), true)
}

// matchBody judges an unsent body as empty and notes where that stops being right.
func (c *compiled) matchBody(f *facts) outcome {
	size, known := f.bodySize()
	if !known {
		f.boundary(c.rule.MinBody)
		if c.rule.MaxBody > 0 {
			f.boundary(c.rule.MaxBody + 1)
		}
	}
	if size < c.rule.MinBody || c.rule.MaxBody > 0 && size > c.rule.MaxBody {
		return no
	}
	return yes
}
