package policy

import (
	"strings"
	"testing"
)

func TestHostsHaveOneSpelling(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"api.example.com", "api.example.com"},
		{"API.Example.COM", "api.example.com"},
		{"api.example.com.", "api.example.com"},
		{"_dmarc.example.com", "_dmarc.example.com"},
		{"bücher.example", "xn--bcher-kva.example"},
		{"BÜCHER.example", "xn--bcher-kva.example"},
		{"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"api\u3002example\uff0ecom", "api.example.com"},
		{"ａｐｉ.example.com", "api.example.com"},
		{"127.0.0.1", "127.0.0.1"},
		{"[::1]", "::1"},
		{"::1", "::1"},
		{"[0:0::0:1]", "::1"},
		{"::ffff:10.0.0.1", "10.0.0.1"},
		{"[2001:DB8::A]", "2001:db8::a"},
		{"localhost", "localhost"},
	} {
		got, err := NormalHost(c.in)
		if err != nil || got != c.want {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestHostsThatOnlyDisguiseAreRefused(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, in := range []string{
		"", ".", "..", "a..b", ".a", "a.b..", "a b", "a\x00b", "a.com\x00.evil", "a/b", "user@a.com", "a.com:443", "a.com#", "a%2ecom", "a\\b",
		"127.1", "2130706433", "0x7f.0.0.1", "0x7f000001", "0177.0.0.1", "1.2.3.4.5", "256.1.1.1", "a.0x10", "1.2.3", "fe80::1%eth0", "[fe80::1%25eth0]",
		"[::1", "::1]", "[127.0.0.1]", "[a.com]", "*.a.com", long + ".com", strings.Repeat("abc.", 70) + "com", "xn--a", "xn--.com", "xn--github-.com",
		"①②⑦.①", "\ufeff", strings.Repeat("ü", 2000), "a\u200d.com",
	} {
		if got, err := NormalHost(in); err == nil {
			t.Errorf("%q is taken as %q", in, got)
		}
	}
}

func TestHostPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"x.com", []string{"x.com"}, []string{"a.x.com", "ax.com", "x.com.evil.net", "x.co"}},
		{"X.com.", []string{"x.com"}, nil},
		{"*.x.com", []string{"a.x.com"}, []string{"x.com", "a.b.x.com", "ax.com", ".x.com"}},
		{"**.x.com", []string{"x.com", "a.x.com", "a.b.x.com"}, []string{"ax.com", "x.com.net", "com"}},
		{"**", []string{"x.com", "127.0.0.1", "::1"}, nil},
		{"10.1.2.3", []string{"10.1.2.3"}, []string{"10.1.2.30", "10.1.2"}},
		{"10.0.0.0/8", []string{"10.1.2.3"}, []string{"11.0.0.1", "10.x.com", "::1"}},
		{"[::1]", []string{"::1"}, []string{"::2"}},
		{"fd00::/8", []string{"fd00::1"}, []string{"fe80::1", "10.0.0.1"}},
		{"*.bücher.example", []string{"a.xn--bcher-kva.example"}, nil},
	} {
		p, err := ParseHostPattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for _, h := range c.yes {
			if !p.Match(h) {
				t.Errorf("%s does not match %s", p, h)
			}
		}
		for _, h := range c.no {
			if p.Match(h) {
				t.Errorf("%s matches %s", p, h)
			}
		}
	}
	for _, bad := range []string{"", "*", "*.", "**.", "a.*.b", "a*.b", "***.a", "*.*.a", "*.10.0.0.1", "10.0.0.1/8", "10.0.0.0/33", "a/b", "::ffff:10.0.0.0/104", "a b", "https://a.b", "a.b:443"} {
		if p, err := ParseHostPattern(bad); err == nil {
			t.Errorf("%q is taken as %q", bad, p)
		}
	}
}

func TestPatternsThatCoverOthers(t *testing.T) {
	for _, c := range []struct {
		p, q string
		want bool
	}{
		{"**", "x.com", true},
		{"**.x.com", "x.com", true},
		{"**.x.com", "*.x.com", true},
		{"**.x.com", "**.a.x.com", true},
		{"*.x.com", "a.x.com", true},
		{"*.x.com", "**.x.com", false},
		{"*.x.com", "*.a.x.com", false},
		{"*.x.com", "a.b.x.com", false},
		{"x.com", "*.x.com", false},
		{"x.com", "**", false},
		{"10.0.0.0/8", "10.1.0.0/16", true},
		{"10.0.0.0/8", "10.1.2.3", true},
		{"10.1.0.0/16", "10.0.0.0/8", false},
		{"10.0.0.0/8", "*.x.com", false},
	} {
		if got := HostPattern(c.p).covers(HostPattern(c.q)); got != c.want {
			t.Errorf("%s covers %s: %v", c.p, c.q, got)
		}
	}
}
