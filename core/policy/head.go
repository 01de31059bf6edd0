package policy

import "strings"

// head is the part of a rule that tells most requests apart from it. Heads of a list lie side by side in memory, so that going past a
// thousand rules that do not match takes microseconds.
type head struct {
	// prefix is what all paths of the rule begin with, in lower case if fold is set.
	prefix  string
	methods uint16
	schemes schemes
	fold    bool
}

func (c *compiled) head() head {
	h := head{schemes: c.schemes, fold: c.loosely()}
	if len(c.methods.other) == 0 {
		h.methods = c.methods.bits
	}
	for i := range c.paths {
		if i == 0 {
			h.prefix = c.paths[0].lit
		}
		for !strings.HasPrefix(c.paths[i].lit, h.prefix) {
			h.prefix = h.prefix[:len(h.prefix)-1]
		}
	}
	if h.fold {
		h.prefix = lowerASCII(h.prefix)
	}
	return h
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = lower(b[i])
	}
	return string(b)
}

// glance is what heads are compared with.
type glance struct {
	// path is the only reading of the path, or empty; lowerPath the same if it has no capitals.
	path, lowerPath string
	methods         uint16
	schemes         schemes
}

// glance prepares an HTTP request; for anything else it excludes nothing.
func (f *facts) glance() (g glance) {
	if !f.http || f.scheme == 0 {
		return g
	}
	g.schemes = f.scheme
	g.methods = methodBit(f.req.Method, true)
	if f.override != "" {
		over := methodBit(f.override, true)
		if over == 0 {
			g.methods = 0
		}
		g.methods |= over
	}
	if f.paths.n == 1 {
		g.path = f.paths.form[0]
		g.lowerPath = g.path
		for i := range len(g.path) {
			if lower(g.path[i]) != g.path[i] {
				g.lowerPath = ""
				break
			}
		}
	}
	return g
}

// excludes says that the rule surely does not match.
func (h *head) excludes(g *glance) bool {
	if g.schemes != 0 && h.schemes&g.schemes == 0 || g.methods != 0 && h.methods != 0 && h.methods&g.methods == 0 {
		return true
	}
	path := g.path
	if h.fold {
		path = g.lowerPath
	}
	return path != "" && (len(path) < len(h.prefix) || path[:len(h.prefix)] != h.prefix)
}
