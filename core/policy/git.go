package policy

import (
	"slices"
	"strings"
)

// RuleGit refuses what no git rule allows, where there are git rules about that host and operation.
const RuleGit = "capsem:git"

// The operations of git.
const (
	GitClone = "clone"
	GitFetch = "fetch"
	GitPush  = "push"
)

// The kinds of a command of a push. An update whose new commit is known to follow on the old one is GitUpdate, any other GitForce. A command on
// a tag is of the kind GitTag as well.
const (
	GitCreate = "create"
	GitUpdate = "update"
	GitForce  = "force"
	GitDelete = "delete"
	GitTag    = "tag"
)

var (
	gitOps   = []string{GitClone, GitFetch, GitPush}
	gitKinds = []string{GitCreate, GitUpdate, GitForce, GitDelete, GitTag}
)

// GitRule is one line about git over HTTPS, a table [[git]]. Empty fields are no condition. It judges what the rules on connections let through.
type GitRule struct {
	// ID names the rule in verdicts and records; it is unique among the git rules of its layer.
	ID     string
	Effect Effect
	Reason string
	Hosts  []HostPattern
	// Repos are globs on the path of the repository, without the slash in front and without ".git" behind: "owner/*".
	Repos []string
	// Ops are clone, fetch and push. A fetch is a clone that says that it has something already, which is the guest's claim.
	Ops []string
	// Refs are globs on full names ("refs/heads/agent/**"), Kinds are create, update, force, delete and tag. Rules with them are about pushes.
	Refs, Kinds []string
	// MaxPack bounds what is pushed at once, in bytes, as it is sent; 0 is no bound. A rule does not match what is larger.
	MaxPack int64
	// Paths are globs on paths of files. A rule that allows matches a push that changes nothing else, and so is known to; any other one a push that
	// changes something there, or of which that is not known. Rules with them are about pushes.
	Paths []string

	line int
}

// Line is where the rule begins in the text it was read from, or 0.
func (r *GitRule) Line() int { return r.line }

// GitRequest is something that git is about to do.
type GitRequest struct {
	// Host and Repo are as in a GitRule.
	Host, Repo string
	// Ops is what it may be: one operation, or clone and fetch where they cannot be told apart.
	Ops []string
	// Ref and Kind are those of a command of a push, empty as long as they are not known.
	Ref, Kind string
	// Pack is how many bytes of the pack are known to come.
	Pack int64
	// Files says what is known of the paths that a push changes, which are Paths.
	Files GitFiles
	Paths []string
}

// GitFiles is what is known of the paths that a push changes.
type GitFiles uint8

// What is known of them: nothing yet, nothing for good, or all.
const (
	GitFilesLater GitFiles = iota
	GitFilesUnknown
	GitFilesKnown
)

// gitCompiled is a git rule made ready.
type gitCompiled struct {
	rule               *GitRule
	layer              Layer
	repos, refs, paths []glob
}

func prepareGit(r *GitRule, layer Layer) (*gitCompiled, error) {
	c := &gitCompiled{rule: r, layer: layer}
	switch {
	case !validID(r.ID):
		return nil, errRule("id %.80q is not 1-80 letters, digits, or . _ - / : @", r.ID)
	case r.Effect < Allow || r.Effect > Deny:
		return nil, errRule("effect is missing: allow, ask or deny")
	case len(r.Reason) > maxReason || strings.ContainsFunc(r.Reason, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return nil, errRule("reason is not one line of at most %d bytes", maxReason)
	case r.MaxPack < 0:
		return nil, errRule("max_pack is negative")
	case max(len(r.Hosts), len(r.Repos), len(r.Ops), len(r.Refs), len(r.Kinds), len(r.Paths)) > maxList:
		return nil, errRule("a condition has more than %d entries", maxList)
	case r.pushOnly() && len(r.Ops) > 0 && !slices.Equal(r.Ops, []string{GitPush}):
		return nil, errRule("refs, kinds, paths and max_pack are about pushes: ops can only be [\"push\"]")
	}
	for _, o := range r.Ops {
		if !slices.Contains(gitOps, o) {
			return nil, errRule("op %.20q is not one of %s", o, strings.Join(gitOps, ", "))
		}
	}
	for _, k := range r.Kinds {
		if !slices.Contains(gitKinds, k) {
			return nil, errRule("kind %.20q is not one of %s", k, strings.Join(gitKinds, ", "))
		}
	}
	for _, text := range r.Repos {
		if strings.HasPrefix(text, "/") || strings.HasSuffix(text, ".git") {
			return nil, errRule("repository %.80q: leave out the slash in front and .git behind", text)
		}
	}
	for _, text := range r.Refs {
		if !strings.HasPrefix(text, "refs/") && !strings.HasPrefix(text, "*") {
			return nil, errRule("ref %.80q can never match: write refs/heads/... or refs/tags/...", text)
		}
	}
	for _, text := range r.Paths {
		if strings.HasPrefix(text, "/") || strings.HasSuffix(text, "/") {
			return nil, errRule("path %.80q can never match: write docs/** or docs/file", text)
		}
	}
	var err error
	if c.paths, err = globs(r.Paths, true); err != nil {
		return c, err
	}
	if c.repos, err = globs(r.Repos, true); err == nil {
		c.refs, err = globs(r.Refs, true)
	}
	return c, err
}

// pushOnly says that the rule has conditions that only a push can meet.
func (r *GitRule) pushOnly() bool { return len(r.Refs)+len(r.Kinds)+len(r.Paths) > 0 || r.MaxPack > 0 }

// speaks reports whether the rule is about a host and operation at all.
func (c *gitCompiled) speaks(req *GitRequest) bool {
	r := c.rule
	if len(r.Hosts) > 0 && !slices.ContainsFunc(r.Hosts, func(p HostPattern) bool { return p.Match(req.Host) }) {
		return false
	}
	if r.pushOnly() {
		return slices.Contains(req.Ops, GitPush)
	}
	return len(r.Ops) == 0 || slices.ContainsFunc(req.Ops, func(o string) bool { return slices.Contains(r.Ops, o) })
}

// match compares everything else. Only an allow is exact about letter case.
func (c *gitCompiled) match(req *GitRequest) outcome {
	r, o := c.rule, yes
	fold := r.Effect != Allow
	if len(c.repos) > 0 && !anyGlob(c.repos, req.Repo, fold) || r.MaxPack > 0 && req.Pack > r.MaxPack {
		return no
	}
	if len(r.Ops) > 0 && slices.ContainsFunc(req.Ops, func(o string) bool { return !slices.Contains(r.Ops, o) }) {
		o = later
	}
	if len(c.refs) > 0 {
		switch {
		case req.Ref == "":
			o = later
		case !anyGlob(c.refs, req.Ref, fold):
			return no
		}
	}
	if len(r.Kinds) > 0 {
		switch tag := strings.HasPrefix(req.Ref, "refs/tags/") && slices.Contains(r.Kinds, GitTag); {
		case tag, slices.Contains(r.Kinds, req.Kind):
		case req.Kind == "" || req.Ref == "" && slices.Contains(r.Kinds, GitTag):
			o = later
		default:
			return no
		}
	}
	return min(o, c.files(req))
}

// files compares the paths of a push.
func (c *gitCompiled) files(req *GitRequest) outcome {
	allows := c.rule.Effect == Allow
	switch {
	case len(c.paths) == 0:
		return yes
	case req.Files == GitFilesLater:
		return later
	case req.Files == GitFilesUnknown:
		if allows {
			return no
		}
		return yes
	}
	for _, p := range req.Paths {
		if anyGlob(c.paths, p, !allows) != allows {
			if allows {
				return no // something else
			}
			return yes
		}
	}
	if allows {
		return yes
	}
	return no
}

// GitNeedsFiles reports whether a verdict may depend on the paths that a push changes.
func (p *Policy) GitNeedsFiles(req *GitRequest) bool {
	for _, rules := range [][]*gitCompiled{p.git, p.gitVM} {
		for _, c := range rules {
			if len(c.paths) > 0 && c.speaks(req) && c.match(req) != no {
				return true
			}
		}
	}
	return false
}

// Git judges something that git is to do. Where facts are missing it gives the mildest verdict that they could lead to. Where no git rule speaks of the
// host and operation the verdict is Allow, without a rule: that of the rules on connections stands. BodyLimit is how many bytes of a
// pack the verdict holds for.
func (p *Policy) Git(req *GitRequest) Verdict {
	v, limit := judgeGit(p.git, req)
	narrower, vmLimit := judgeGit(p.gitVM, req)
	if narrower.Effect > v.Effect {
		v = narrower
	}
	if v.BodyLimit = limit; limit < 0 || vmLimit >= 0 && vmLimit < limit {
		v.BodyLimit = vmLimit
	}
	return v
}

// HasGit reports whether there are git rules at all.
func (p *Policy) HasGit() bool { return len(p.git)+len(p.gitVM) > 0 }

func judgeGit(rules []*gitCompiled, req *GitRequest) (v Verdict, limit int64) {
	limit = -1
	var mild, final *gitCompiled
	spoken := false
	for _, c := range rules {
		if !c.speaks(req) {
			continue
		}
		spoken = true
		o := c.match(req)
		if n := c.rule.MaxPack; o != no && n > 0 && (limit < 0 || n < limit) {
			limit = n
		}
		if o == yes {
			final = c
			break
		}
		if o == later && (mild == nil || c.rule.Effect < mild.rule.Effect) {
			mild = c
		}
	}
	best := final
	if mild != nil && (best == nil || mild.rule.Effect < best.rule.Effect) {
		best = mild
	}
	switch {
	case best != nil:
		return Verdict{Effect: best.rule.Effect, RuleID: best.rule.ID, Layer: best.layer, Reason: best.rule.Reason}, limit
	case spoken:
		return Verdict{Effect: Deny, RuleID: RuleGit, Reason: "no git rule allows this"}, limit
	}
	return Verdict{Effect: Allow}, limit
}
