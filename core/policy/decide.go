package policy

import (
	"net/netip"

	"capsem/core/fault"
)

// Rule ids of verdicts that no rule of the owner made.
const (
	// RuleDefault denies what no rule matches, RuleMalformed what has no sound reading, RulePrivate an address that no rule opens.
	RuleDefault   = "capsem:default"
	RuleMalformed = "capsem:malformed"
	RulePrivate   = "capsem:private-address"
)

const reasonDefault = "no rule allows this"

// Verdict is what a policy says to a request.
type Verdict struct {
	Effect Effect
	// RuleID is the deciding rule, or one of RuleDefault, RuleMalformed, RulePrivate; Layer is its layer, 0 if it is none of the owner's.
	RuleID string
	Layer  Layer
	Reason string
	// Matched are the conditions of the deciding rule.
	Matched Fact
	// Doubt says that the rule decided because it is more severe, not because every reading of the request matches.
	Doubt bool
	// Err is the error of a "when" that took part.
	Err string
	// BodyLimit is how many bytes of a body of unknown size may pass before the request is to be decided again with the count so far as
	// its size; -1 is no limit.
	BodyLimit int64
	// AskID is the question to the owner that the request was held for, if one was put.
	AskID string

	opens []netip.Prefix
}

// Opens reports whether the deciding rule opens a private address by an explicit range.
func (v *Verdict) Opens(addr netip.Addr) bool {
	return v.Effect != Deny && contains(v.opens, addr.Unmap())
}

func contains(list []netip.Prefix, addr netip.Addr) bool {
	for _, p := range list {
		if p.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// Policy is a compiled list of rules. It never changes and may be used by any number of goroutines.
type Policy struct {
	// base are the rules of corp, user and defaults in order, vm those that only narrow.
	base, vm *list
	// git and gitVM are the same of the rules about git.
	git, gitVM []*gitCompiled
}

// Compile makes a policy of sets. Their order matters only within a layer.
func Compile(sets ...*Set) (*Policy, error) {
	p := &Policy{base: newList(), vm: newList()}
	b := builder{seen: map[Layer]map[string]bool{}}
	for layer := LayerCorp; layer <= LayerVM; layer++ {
		to := p.base
		if layer == LayerVM {
			to = p.vm
		}
		for _, s := range sets {
			if s.Layer < LayerCorp || s.Layer > LayerVM {
				return nil, errRule("a set of rules has no layer")
			}
			if s.Layer != layer {
				continue
			}
			if err := b.add(to, s); err != nil {
				return nil, err
			}
			if err := p.addGit(s); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// builder compiles rules one by one.
type builder struct {
	seen map[Layer]map[string]bool
	env  whenEnv
}

func (b *builder) add(to *list, s *Set) error {
	if b.seen[s.Layer] == nil {
		b.seen[s.Layer] = map[string]bool{}
	}
	seen := b.seen[s.Layer]
	for i := range s.Rules {
		r := s.Rules[i]
		c, err := prepare(&r, s.Layer)
		switch {
		case err == nil && seen[r.ID]:
			err = errRule("there is another rule with this id")
		case err == nil && len(seen) == MaxRules:
			err = errRule("the layer has more than %d rules", MaxRules)
		case err == nil && r.When != "":
			c.when, err = b.env.compile(r.When)
		}
		if err != nil {
			return inRule(err, s.Layer, &r, i)
		}
		seen[r.ID] = true
		to.add(c)
	}
	return nil
}

// inRule says where a mistake is.
func inRule(err error, layer Layer, r *Rule, index int) error {
	_, message, _ := fault.Public(err)
	switch {
	case r.line > 0:
		return errRule("%s policy, line %d, rule %.80q: %s", layer, r.line, r.ID, message)
	default:
		return errRule("%s policy, rule %d %.80q: %s", layer, index+1, r.ID, message)
	}
}

// mode says what to make of facts that are not known.
type mode uint8

const (
	// pessimist takes a missing fact as doubt, optimist hopes for the best.
	pessimist mode = iota
	optimist
)

// Decide judges a request by what is known of it; what is not known counts against it. A name lookup is judged as by Possible.
func (p *Policy) Decide(req *Request) Verdict {
	if req.Scheme == "dns" {
		return p.decide(req, optimist)
	}
	return p.decide(req, pessimist)
}

// Possible gives the mildest verdict that facts still to come could lead to. Deny is final; anything else means to go on and ask again
// with Decide when more is known.
func (p *Policy) Possible(req *Request) Verdict { return p.decide(req, optimist) }

func (p *Policy) decide(req *Request, m mode) Verdict {
	var f facts
	if malformed := f.read(req); malformed != "" {
		return malformedVerdict(malformed)
	}
	w := walk{mode: m}
	w.through(p.base, &f)
	v := w.verdict()
	if v.Effect != Deny && len(p.vm.rules) > 0 {
		n := walk{mode: m, vm: true}
		n.through(p.vm, &f)
		v = narrow(v, n.verdict())
	}
	v.BodyLimit = f.bodyLimit
	return v
}

func malformedVerdict(why string) Verdict {
	return Verdict{Effect: Deny, RuleID: RuleMalformed, Reason: why, BodyLimit: -1}
}

// narrow gives the more severe of the verdict and of what the VM's own rules say. Those open nothing.
func narrow(v, vm Verdict) Verdict {
	if vm.Effect <= v.Effect {
		v.Err = firstOf(v.Err, vm.Err)
		return v
	}
	vm.opens, vm.Err = v.opens, firstOf(v.Err, vm.Err)
	return vm
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// walk is one pass over an ordered list.
type walk struct {
	mode mode
	vm   bool
	// severe is the most severe rule in doubt so far, mild the mildest verdict that a rule awaiting facts could bring, final the rule
	// that matched.
	severe, mild, final candidate
	// err is the first error of a "when".
	err error
}

// candidate is a rule that may decide.
type candidate struct {
	effect Effect
	rule   *compiled
	doubt  bool
}

func (w *walk) through(l *list, f *facts) {
	var k cursors
	l.look(f, &k)
	g := f.glance()
	for rank := k.next(); rank >= 0; rank = k.next() {
		if l.heads[rank].excludes(&g) {
			continue
		}
		c := l.rules[rank]
		if w.step(c, c.match(f)) {
			return
		}
	}
}

// step takes in the outcome of one rule and reports whether the search is over.
func (w *walk) step(c *compiled, m matched) (done bool) {
	effect := c.rule.Effect
	if w.err == nil {
		w.err = m.err
	}
	o := m.outcome
	if o == later && w.mode == pessimist {
		o = doubt
	}
	switch o {
	case yes:
		w.final = candidate{effect: effect, rule: c}
		return true
	case doubt:
		if effect > w.severe.effect {
			w.severe = candidate{effect: effect, rule: c, doubt: true}
		}
		return effect == Deny
	case later:
		if effect = max(effect, w.severe.effect); w.mild.effect == 0 || effect < w.mild.effect {
			w.mild = candidate{effect: effect, rule: c}
		}
		return effect == Allow
	}
	return false
}

// verdict puts the three candidates together.
func (w *walk) verdict() Verdict {
	best := w.final
	if best.effect == 0 {
		best.effect = Deny
		if w.vm {
			best.effect = Allow // a list that says nothing narrows nothing
		}
	}
	if w.severe.effect >= best.effect && w.severe.rule != nil && (best.rule == nil || w.severe.effect > best.effect) {
		best = w.severe
	}
	if w.mild.effect != 0 && w.mild.effect < best.effect {
		best = w.mild
	}
	v := Verdict{Effect: best.effect, RuleID: RuleDefault, Reason: reasonDefault, Doubt: best.doubt, BodyLimit: -1}
	if w.err != nil {
		v.Err = w.err.Error()
	}
	if c := best.rule; c != nil {
		v.RuleID, v.Layer, v.Reason, v.Matched = c.rule.ID, c.layer, c.rule.Reason, c.conditions()
		if c.rule.Effect != Deny {
			v.opens = c.cidr
		}
	}
	return v
}
