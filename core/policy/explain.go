package policy

// Step says what one rule had to say to a request.
type Step struct {
	RuleID string
	Layer  Layer
	Effect Effect
	// Outcome is no, later (a fact is missing), doubt (one reading of the request matches) or yes.
	Outcome string
	// Fact is the condition that did not hold, or not surely.
	Fact Fact
	Err  string
}

// Explain judges a request as Decide does (or as Possible, if the facts are not complete and early is set), rule by rule and without the
// indexes, and says what each rule up to the deciding one answered.
func (p *Policy) Explain(req *Request, early bool) (Verdict, []Step) {
	m := pessimist
	if early || req.Scheme == "dns" {
		m = optimist
	}
	var f facts
	if malformed := f.read(req); malformed != "" {
		return malformedVerdict(malformed), nil
	}
	var steps []Step
	w, n := walk{mode: m}, walk{mode: m, vm: true}
	steps = w.slowly(p.base, &f, steps)
	v := w.verdict()
	if v.Effect != Deny && len(p.vm.rules) > 0 {
		steps = n.slowly(p.vm, &f, steps)
		v = narrow(v, n.verdict())
	}
	v.BodyLimit = f.bodyLimit
	return v, steps
}

func (w *walk) slowly(l *list, f *facts, steps []Step) []Step {
	for _, c := range l.rules {
		m := matched{outcome: no, fact: FactHost}
		if c.hostMatches(f) {
			m = c.match(f)
		}
		s := Step{RuleID: c.rule.ID, Layer: c.layer, Effect: c.rule.Effect, Outcome: m.outcome.String(), Fact: m.fact}
		if m.err != nil {
			s.Err = m.err.Error()
		}
		steps = append(steps, s)
		if w.step(c, m) {
			break
		}
	}
	return steps
}
