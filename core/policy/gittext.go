package policy

import "slices"

// gitText is a git rule as it is written.
type gitText struct {
	ID      string   `toml:"id"`
	Effect  string   `toml:"effect"`
	Reason  string   `toml:"reason,omitempty"`
	Hosts   []string `toml:"hosts,omitempty"`
	Repos   []string `toml:"repos,omitempty"`
	Ops     []string `toml:"ops,omitempty"`
	Refs    []string `toml:"refs,omitempty"`
	Kinds   []string `toml:"kinds,omitempty"`
	MaxPack any      `toml:"max_pack,omitempty"`
	Paths   []string `toml:"paths,omitempty"`
}

func (t *gitText) rule() (GitRule, error) {
	r := GitRule{ID: t.ID, Reason: t.Reason, Repos: t.Repos, Ops: t.Ops, Refs: t.Refs, Kinds: t.Kinds, Paths: t.Paths}
	var err error
	if r.Effect, err = ParseEffect(t.Effect); err != nil {
		return r, err
	}
	if r.Hosts, err = hostPatterns(t.Hosts); err != nil {
		return r, err
	}
	if r.MaxPack, err = size(t.MaxPack); err != nil {
		return r, err
	}
	for _, l := range [][]string{t.Hosts, t.Repos, t.Ops, t.Refs, t.Kinds, t.Paths} {
		if l != nil && len(l) == 0 {
			return r, errRule("an empty list is no condition: leave it out")
		}
	}
	return r, nil
}

// parseGit reads the tables [[git]] of a text.
func (s *Set) parseGit(tables []gitText, data string) error {
	if len(tables) > MaxRules {
		return errRule("the policy has more than %d git rules", MaxRules)
	}
	lines := tableLines(data, "git")
	seen := map[string]bool{}
	for i := range tables {
		r, err := tables[i].rule()
		if i < len(lines) {
			r.line = lines[i]
		}
		if err == nil {
			_, err = prepareGit(&r, s.Layer)
		}
		if err == nil && seen[r.ID] {
			err = errRule("there is another git rule with this id")
		}
		if err != nil {
			return inRule(err, s.Layer, &Rule{ID: r.ID, line: r.line}, i)
		}
		seen[r.ID] = true
		s.Git = append(s.Git, r)
	}
	return nil
}

// addGit compiles the git rules of a set.
func (p *Policy) addGit(s *Set) error {
	to := &p.git
	if s.Layer == LayerVM {
		to = &p.gitVM
	}
	for i := range s.Git {
		r := s.Git[i]
		c, err := prepareGit(&r, s.Layer)
		switch {
		case err == nil && slices.ContainsFunc(*to, func(o *gitCompiled) bool { return o.layer == s.Layer && o.rule.ID == r.ID }):
			err = errRule("there is another git rule with this id")
		case err == nil && len(*to) == MaxRules:
			err = errRule("there are more than %d git rules", MaxRules)
		}
		if err != nil {
			return inRule(err, s.Layer, &Rule{ID: r.ID, line: r.line}, i)
		}
		*to = append(*to, c)
	}
	return nil
}
