package proto

import (
	"regexp"
	"strings"
	"testing"
)

// FuzzNamesMatchTheirPatterns holds the hand-written matchers to the patterns they stand for.
func FuzzNamesMatchTheirPatterns(f *testing.F) {
	patterns := []struct {
		name    string
		match   func(string) bool
		pattern *regexp.Regexp
	}{
		{"short", isShortName, regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\z`)},
		{"stage", isStageName, regexp.MustCompile(`\A[A-Za-z0-9_]{1,64}\z`)},
		{"host", isHostName, regexp.MustCompile(`\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z`)},
		{"zone", isZoneName, regexp.MustCompile(`\A[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}\z`)},
	}
	for _, s := range []string{
		"", "a", "-", "a-", "-a", "a-b", "A", "a\n", "a b", "é", ".x", "x.", "x_y", "Europe/Berlin", "a/b/c", "a/b/c/d", "/a", "a/", "a//b", "..", "UTC+1",
		strings.Repeat("a", 32), strings.Repeat("a", 33), strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 65), "xterm-256color",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range patterns {
			if got, want := p.match(s), p.pattern.MatchString(s); got != want {
				t.Errorf("%s name %q: %v, the pattern says %v", p.name, s, got, want)
			}
		}
	})
}
