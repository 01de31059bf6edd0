package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestPathsHaveOnePlainReading(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"/", "/"},
		{"/a/b", "/a/b"},
		{"/a/", "/a/"},
		{"/%61dmin", "/admin"},
		{"/a/../b", "/b"},
		{"/a/%2e%2e/b", "/b"},
		{"/a/.%2E/b", "/b"},
		{"/../../b", "/b"},
		{"/a/.", "/a/"},
		{"/a/..", "/"},
		{"/a//b", "/a/b"},
		{"//a", "/a"},
		{"/a/./b", "/a/b"},
		{"/a%2fb", "/a%2Fb"},
		{"/a%20b", "/a b"},
		{"/caf%C3%A9", "/café"},
		{"/a;x=1/b", "/a;x=1/b"},
		{"/100%25", "/100%"},
	} {
		got, err := NormalPath(c.in)
		if err != nil || got != c.want {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestPathsWithSeveralReadings(t *testing.T) {
	for in, want := range map[string][]string{
		"/pub/..%2fadmin":       {"/pub/..%2Fadmin", "/admin"},
		"/pub/%252e%252e/x":     {"/pub/%2e%2e/x", "/x"},
		"/pub/..;/x":            {"/pub/..;/x", "/x"},
		"/pub/..;a=b/x":         {"/pub/..;a=b/x", "/x"},
		`/pub\..\x`:             {`/pub\..\x`, "/x"},
		"/pub/..%5cx":           {"/pub/..%5Cx", "/x"},
		"/pub//../x":            {"/pub/x", "/x"},
		"/a%252fb":              {"/a%2fb", "/a/b"},
		"/%zz/%252e%252e/x/%25": nil,
	} {
		r, err := readPath(in)
		if want == nil {
			if err == nil {
				t.Errorf("%q has readings %q", in, r.form[:r.n])
			}
			continue
		}
		if got := r.form[:r.n]; err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestPathsThatNoSoundClientSendsAreRefused(t *testing.T) {
	for _, in := range []string{
		"", "a", "*", "http://other.example/a", "/a%", "/a%2", "/a%zz", "/a%00b", "/a\x00b", "/a\r\nHost: x", "/a%0d%0ab", "/a%7f", "/a%c0%ae%c0%ae/b", "/a%ff",
		"/a?b", "/a#b", "/a%2500", "/%25252525252561", "/" + strings.Repeat("a", maxPath), "\\a",
	} {
		if r, err := readPath(in); err == nil {
			t.Errorf("%.40q has readings %.200q", in, r.form[:r.n])
		}
	}
}
