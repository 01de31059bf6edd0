package policy

import "strings"

// glob is a compiled pattern. With slashes, * stops at a slash and ** does not; without, both match anything.
type glob struct {
	text string
	// lit is what stands before the first star, with escapes taken out. exact says that nothing follows it.
	lit   string
	exact bool
	// tree says that the pattern is lit and everything below it: lit, or lit + "/..." (from "lit/**").
	tree  bool
	parts []part
}

// part is a star and the plain text behind it.
type part struct {
	deep bool
	lit  string
}

// compileGlob checks a pattern.
func compileGlob(text string, slashes bool) (glob, error) {
	if text == "" || len(text) > maxPattern {
		return glob{}, errRule("%.40q: a pattern has 1-%d bytes", text, maxPattern)
	}
	g := glob{text: text}
	var lit []byte
	flush := func() {
		if len(g.parts) == 0 {
			g.lit = string(lit)
		} else {
			g.parts[len(g.parts)-1].lit = string(lit)
		}
		lit = lit[:0]
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c < ' ' || c == 0x7f:
			return glob{}, errRule("%.40q has a control byte in it", text)
		case c == '\\':
			if i++; i == len(text) {
				return glob{}, errRule("%.40q ends in a backslash", text)
			}
			lit = append(lit, text[i])
		case c == '*':
			flush()
			n := 1
			for i+1 < len(text) && text[i+1] == '*' {
				i, n = i+1, n+1
			}
			g.parts = append(g.parts, part{deep: n > 1 || !slashes})
		default:
			lit = append(lit, c)
		}
	}
	flush()
	g.exact = len(g.parts) == 0
	if len(g.parts) > maxStars {
		return glob{}, errRule("%.40q has more than %d stars", text, maxStars)
	}
	if slashes && len(g.parts) == 1 && g.parts[0] == (part{deep: true}) && strings.HasSuffix(g.lit, "/") {
		g.tree, g.lit = true, strings.TrimSuffix(g.lit, "/")
	}
	return g, nil
}

// match compares a text with the pattern; fold takes ASCII letters of either case as equal.
func (g *glob) match(s string, fold bool) bool {
	if !hasPrefix(s, g.lit, fold) {
		return false
	}
	s = s[len(g.lit):]
	switch {
	case g.exact:
		return s == ""
	case g.tree:
		return s == "" || s[0] == '/'
	}
	if end := g.parts[len(g.parts)-1].lit; len(s) < len(end) || !hasPrefix(s[len(s)-len(end):], end, fold) {
		return false
	}
	if g.run(s, fold) {
		return true
	}
	// "a*b/**" covers what a*b covers.
	last := len(g.parts) - 1
	if last > 0 && g.parts[last] == (part{deep: true}) && strings.HasSuffix(g.parts[last-1].lit, "/") {
		return g.run(s+"/", fold)
	}
	return false
}

// run matches the parts from the first star on. There are two places to go back to: a star only ever has to grow if no later one can,
// and a * cannot grow over a slash, in which case the last ** has to.
func (g *glob) run(s string, fold bool) bool {
	if len(s) > longText && len(g.parts) > 1 {
		return g.table(s, fold)
	}
	type mark struct{ part, pos int }
	star, deep := mark{-1, 0}, mark{-1, 0}
	i, pos := 0, 0
	for {
		if i < len(g.parts) {
			p := &g.parts[i]
			if p.deep {
				deep, star = mark{i, pos}, mark{-1, 0}
			} else {
				star = mark{i, pos}
			}
			if hasPrefix(s[pos:], p.lit, fold) {
				i, pos = i+1, pos+len(p.lit)
				if i < len(g.parts) || pos == len(s) {
					continue
				}
			}
		} else if pos == len(s) {
			return true
		}
		switch {
		case star.part >= 0 && star.pos < len(s) && s[star.pos] != '/':
			i, pos = star.part, star.pos+1
		case deep.part >= 0 && deep.pos < len(s):
			i, pos = deep.part, deep.pos+1
		default:
			return false
		}
	}
}

// longText is the length from which going back costs more than a table: a hostile text can make it quadratic.
const longText = 256

// table matches as run does, in time that grows with the text's length and not faster: for each part it notes where a match can have
// come to.
func (g *glob) table(s string, fold bool) bool {
	at, next := make([]bool, len(s)+1), make([]bool, len(s)+1)
	at[0] = true
	for i := range g.parts {
		p := &g.parts[i]
		clear(next)
		open := false
		for pos := range len(s) + 1 {
			if open = open || at[pos]; open && hasPrefix(s[pos:], p.lit, fold) {
				next[pos+len(p.lit)] = true
			}
			if open && !p.deep && pos < len(s) && s[pos] == '/' {
				open = false
			}
		}
		at, next = next, at
	}
	return at[len(s)]
}

// any reports whether everything matches.
func (g *glob) any() bool {
	return g.text == "**" || g.text == "/**" || len(g.parts) == 1 && g.parts[0] == (part{deep: true}) && g.lit == "" && !g.tree
}

// covers reports, in the plain cases, whether everything that o matches is matched by g.
func (g *glob) covers(o *glob) bool {
	switch {
	case g.text == o.text || g.any():
		return true
	case o.exact:
		return g.match(o.lit, false)
	case g.tree:
		return o.lit == g.lit && o.tree || strings.HasPrefix(o.lit, g.lit+"/")
	}
	return false
}

func hasPrefix(s, prefix string, fold bool) bool {
	if len(s) < len(prefix) {
		return false
	}
	if !fold {
		return s[:len(prefix)] == prefix
	}
	for i := range len(prefix) {
		if lower(s[i]) != lower(prefix[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// escapeGlob makes a pattern that matches exactly this text.
func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`).Replace(s)
}
