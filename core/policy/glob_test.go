package policy

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestGlobs(t *testing.T) {
	for _, c := range []struct {
		glob    string
		yes, no []string
	}{
		{"/a", []string{"/a"}, []string{"/a/", "/ab", "/", "/A"}},
		{"/a/*", []string{"/a/b", "/a/"}, []string{"/a", "/a/b/c"}},
		{"/a/**", []string{"/a", "/a/", "/a/b/c"}, []string{"/ab", "/", "/b/a"}},
		{"/**", []string{"/", "/a", "/a/b"}, nil},
		{"**", []string{"/", "/a/b"}, nil},
		{"/*/x/**", []string{"/a/x", "/a/x/", "/a/x/b"}, []string{"/x", "/a/b/x", "/a/xy"}},
		{"/**/x", []string{"/a/x", "/a/b/x"}, []string{"/a/x/b"}},
		{"/a*b*c", []string{"/abc", "/a1b2c", "/abbcc"}, []string{"/ab/c", "/acb"}},
		{"/**/a*z", []string{"/q/a1/q/az", "/x/abz"}, []string{"/x/a/z"}},
		{`/a\*`, []string{"/a*"}, []string{"/ab"}},
		{`/a\\b`, []string{`/a\b`}, nil},
	} {
		g, err := compileGlob(c.glob, true)
		if err != nil {
			t.Errorf("%s: %v", c.glob, err)
			continue
		}
		for _, s := range c.yes {
			if !g.match(s, false) || !g.match(strings.ToUpper(s), true) {
				t.Errorf("%s does not match %s", c.glob, s)
			}
		}
		for _, s := range c.no {
			if g.match(s, false) {
				t.Errorf("%s matches %s", c.glob, s)
			}
		}
	}
	for _, bad := range []string{"", `/a\`, "/a\x00", "/\n", strings.Repeat("a", maxPattern+1), strings.Repeat("*a", maxStars+1)} {
		if _, err := compileGlob(bad, true); err == nil {
			t.Errorf("%q is a glob", bad)
		}
	}
}

// asRegexp says what a glob means in other words.
func asRegexp(glob string) *regexp.Regexp {
	expr := regexp.QuoteMeta(glob)
	expr = regexp.MustCompile(`(\\\*){2,}`).ReplaceAllString(expr, "\x01")
	tree := strings.HasSuffix(expr, "/\x01")
	if tree {
		expr = strings.TrimSuffix(expr, "/\x01")
	}
	expr = strings.ReplaceAll(strings.ReplaceAll(expr, `\*`, "[^/]*"), "\x01", ".*")
	if tree {
		expr += "(/.*)?"
	}
	return regexp.MustCompile("^(?s:" + expr + ")$")
}

func TestGlobsMatchWhatTheEqualExpressionMatches(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	word := func(alphabet string, n int) string {
		var b strings.Builder
		for range rnd.IntN(n) {
			b.WriteByte(alphabet[rnd.IntN(len(alphabet))])
		}
		return b.String()
	}
	for range 100_000 {
		text, s := "/"+word("ab/**", 9), "/"+word("ab/", 10)
		g, err := compileGlob(text, true)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := g.match(s, false), asRegexp(text).MatchString(s); got != want {
			t.Fatalf("%s against %s: %v, want %v", text, s, got, want)
		}
		if rest, ok := strings.CutPrefix(s, g.lit); ok && !g.exact && !g.tree && g.table(rest, false) != g.run(rest, false) {
			t.Fatalf("%s against %s: the table says %v", text, s, !g.run(rest, false))
		}
	}
}

func TestGlobsThatCoverOthersMatchWhatThoseMatch(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"/**", "/a/*", true},
		{"/a/**", "/a/b/*", true},
		{"/a/**", "/a", true},
		{"/a/**", "/ab", false},
		{"/a/*", "/a/b", true},
		{"/a/*", "/a/**", false},
		{"/a/b", "/a/*", false},
	} {
		a, _ := compileGlob(c.a, true)
		b, _ := compileGlob(c.b, true)
		if got := a.covers(&b); got != c.want {
			t.Errorf("%s covers %s: %v", c.a, c.b, got)
		}
	}
}

func TestAHostilePathMakesNoGlobSlow(t *testing.T) {
	for _, text := range []string{strings.Repeat("**a", maxStars-1) + "**b", "/**a*b*c", "/**a*b/*c", "/**a**a*a*b*c"} {
		g, err := compileGlob(text, true)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for _, s := range []string{strings.Repeat("a", maxPath), "/" + strings.Repeat("a", maxPath) + "c", "/" + strings.Repeat("a", maxPath/2) + "/" + strings.Repeat("a", maxPath/2) + "c"} {
			if g.match(s, true) {
				t.Errorf("%s matches", text)
			}
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("%s took %v", text, d)
		}
	}
}
