package policy

import (
	"fmt"
	"slices"
)

// git looks through the git rules of one list.
func (l *linter) git(rules []*gitCompiled) {
	for i, c := range rules {
		r := c.rule
		if r.Effect == Deny && r.Reason == "" {
			l.addGit(c, SeverityWarning, LintNoReason, "the agent will not know why it is refused")
		}
		if r.Effect == Allow && len(r.Ops) == 0 && !r.pushOnly() {
			l.addGit(c, SeverityWarning, LintAllowAll, "it allows pushes to every branch, by force too: say which ops, refs and kinds")
		}
		for _, e := range rules[:i] {
			if e.covers(c) {
				l.addGit(c, SeverityError, LintShadowed, "never reached: %s git rule %s decides all of it", e.layer, e.rule.ID)
				break
			}
		}
	}
}

// covers reports, where it can tell, that c matches whatever o matches.
func (c *gitCompiled) covers(o *gitCompiled) bool {
	a, b := c.rule, o.rule
	within := func(a, b []string) bool { return len(a) == 0 || len(b) > 0 && subset(b, a) }
	ops := b.Ops
	if b.pushOnly() {
		ops = []string{GitPush}
	}
	return (a.MaxPack == 0 || b.MaxPack > 0 && a.MaxPack >= b.MaxPack) && within(a.Ops, ops) && within(a.Kinds, b.Kinds) &&
		coversPaths(c, o) && (!a.pushOnly() || slices.Equal(ops, []string{GitPush})) && coversHosts(a.Hosts, b.Hosts) &&
		coversGlobs(c.repos, o.repos) && coversGlobs(c.refs, o.refs)
}

// coversPaths says whether a push whose paths fit o fits c too.
func coversPaths(c, o *gitCompiled) bool {
	return len(c.paths) == 0 || c.rule.Effect == o.rule.Effect && len(o.paths) > 0 && coversGlobs(c.paths, o.paths)
}

func (l *linter) addGit(c *gitCompiled, s Severity, code, format string, args ...any) {
	if len(l.out) < maxFindings {
		l.out = append(l.out, Finding{s, code, c.rule.ID, c.layer, c.rule.line, fmt.Sprintf(format, args...)})
	}
}
