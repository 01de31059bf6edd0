package policy

import (
	"net/netip"
	"strings"
	"testing"
)

const onX = `hosts = ["x.com"]` + "\n"

func header(pairs ...string) func(r *Request) {
	return func(r *Request) {
		r.Header = map[string][]string{}
		for i := 0; i < len(pairs); i += 2 {
			r.Header[pairs[i]] = append(r.Header[pairs[i]], pairs[i+1])
		}
	}
}

func raw(path string) func(r *Request) { return func(r *Request) { r.Path = path } }

// conditionCases has one rule and one request each, and what becomes of it.
var conditionCases = []struct {
	effect, body, request string
	change                func(r *Request)
	want                  string
}{
	// Host.
	{"allow", onX, "GET https://x.com/", nil, "allow:allow"},
	{"allow", onX, "GET https://X.COM./", nil, "allow:allow"},
	{"allow", onX, "GET https://x.com.evil.net/", nil, "deny:default"},
	{"allow", onX, "GET https://x.com/", func(r *Request) { r.Host = "x.com@evil.net" }, "deny:malformed"},
	{"allow", onX, "GET https://x.com/", func(r *Request) { r.Host = "x.com:443" }, "deny:malformed"},
	{"allow", onX, "GET https://x.com/", func(r *Request) { r.Host = "x.com\x00" }, "deny:malformed"},
	{"allow", onX, "GET https://x.com/", func(r *Request) { r.Scheme = "gopher" }, "deny:malformed"},
	{"deny", `hosts = ["b\u00fccher.example"]`, "GET https://xn--bcher-kva.example/", nil, "deny:deny"},
	{"allow", `hosts = ["127.0.0.1"]`, "GET https://[::ffff:127.0.0.1]/", nil, "allow:allow"},
	{"allow", `hosts = ["127.0.0.0/8"]`, "GET https://127.9.9.9/", nil, "allow:allow"},
	// Ports and schemes: an allow opens only its schemes' own.
	{"allow", onX, "GET https://x.com:8443/", nil, "deny:default"},
	{"allow", onX, "GET http://x.com/", nil, "allow:allow"},
	{"allow", onX, "GET http://x.com:443/", nil, "deny:default"},
	{"allow", onX, "GET wss://x.com/", nil, "allow:allow"},
	{"allow", onX + `ports = [8443, "9000-9010"]`, "GET https://x.com:9005/", nil, "allow:allow"},
	{"allow", onX + `ports = [8443, "9000-9010"]`, "GET https://x.com/", nil, "deny:default"},
	{"allow", onX + `schemes = ["https"]`, "GET http://x.com/", nil, "deny:default"},
	{"allow", onX + `schemes = ["https"]`, "GET wss://x.com/", nil, "deny:default"},
	{"allow", onX, "TCP x.com:443", nil, "deny:default"},
	{"allow", onX + "ports = [22]\n" + `schemes = ["tcp"]`, "TCP x.com:22", nil, "allow:allow"},
	{"allow", onX + "ports = [22]\n" + `schemes = ["tcp"]`, "TCP x.com:23", nil, "deny:default"},
	{"deny", onX, "TCP x.com:22", nil, "deny:deny"},
	{"deny", onX + `schemes = ["https"]`, "GET wss://x.com:99/", nil, "deny:deny"},
	{"ask", onX, "TCP x.com:22", nil, "ask:ask"},
	{"ask", onX + `methods = ["GET"]`, "TCP x.com:22", nil, "deny:default"},
	// Methods.
	{"allow", onX + `methods = ["GET"]`, "POST https://x.com/", nil, "deny:default"},
	{"allow", onX + `methods = ["GET"]`, "get https://x.com/", nil, "deny:default"},
	{"allow", onX + `methods = ["PROPFIND"]`, "PROPFIND https://x.com/", nil, "allow:allow"},
	{"deny", onX + `methods = ["DELETE"]`, "delete https://x.com/", nil, "deny:deny"},
	{"deny", onX + `methods = ["DELETE"]`, "POST https://x.com/", header("x-http-method-override", "DELETE"), "deny:deny"},
	{"deny", onX + `methods = ["DELETE"]`, "POST https://x.com/", header("X_HTTP_Method_Override", " delete "), "deny:deny"},
	{"allow", onX + `methods = ["POST"]`, "POST https://x.com/", header("X-Method-Override", "DELETE"), "deny:default"},
	{"allow", onX, "GET https://x.com/", func(r *Request) { r.Method = "GET /\r\n" }, "deny:malformed"},
	// Paths: an allow must hold in every reading, a deny in one.
	{"allow", onX + `paths = ["/pub/**"]`, "GET https://x.com/pub/a", nil, "allow:allow"},
	{"allow", onX + `paths = ["/pub/**"]`, "GET https://x.com/", raw("/pub/../admin"), "deny:default"},
	{"allow", onX + `paths = ["/pub/**"]`, "GET https://x.com/", raw("/pub/%2e%2e/admin"), "deny:default"},
	{"allow", onX + `paths = ["/pub/**"]`, "GET https://x.com/", raw("/pub/%2e%2e%2fadmin"), "deny:default"},
	{"allow", onX + `paths = ["/pub/**"]`, "GET https://x.com/", raw("/pub/%252e%252e/admin"), "deny:default"},
	{"allow", onX + `paths = ["/pub/**"]`, "GET https://x.com/", raw("/pub/..;/admin"), "deny:default"},
	{"allow", onX + `paths = ["/pub/**"]`, "GET https://x.com/", raw(`/pub/..\admin`), "deny:default"},
	{"allow", onX + `paths = ["/pub/**"]`, "GET https://x.com/", raw("/PUB/a"), "deny:default"},
	{"allow", onX + `paths = ["/pub/**"]`, "GET https://x.com/", raw("//pub//a"), "allow:allow"},
	{"allow", onX + `paths = ["/p/*/i"]`, "GET https://x.com/", raw("/p/a%2Fb/i"), "deny:default"},
	{"allow", onX + `paths = ["/p/**"]`, "GET https://x.com/", raw("/p/a%2Fb/i"), "allow:allow"},
	{"allow", onX + `paths = ["/pub/**"]`, "GET https://x.com/", raw("https://x.com/pub/a"), "deny:malformed"},
	{"allow", onX + `paths = ["/pub/**"]`, "GET https://x.com/", raw("/pub/%00"), "deny:malformed"},
	{"deny", onX + `paths = ["/admin"]`, "GET https://x.com/", raw("/ADMIN"), "deny:deny"},
	{"deny", onX + `paths = ["/admin"]`, "GET https://x.com/", raw("/admin/"), "deny:deny"},
	{"deny", onX + `paths = ["/admin"]`, "GET https://x.com/", raw("/%61dmin"), "deny:deny"},
	{"deny", onX + `paths = ["/admin"]`, "GET https://x.com/", raw("/x/..//admin;a=b"), "deny:deny"},
	{"deny", onX + `paths = ["/a/b"]`, "GET https://x.com/", raw("/a%2fb"), "deny:deny"},
	{"deny", onX + `paths = ["/a/**"]`, "GET https://x.com/", raw("/a"), "deny:deny"},
	// Query.
	{"allow", onX + `query = ["ref=main"]`, "GET https://x.com/?ref=main&q=1", nil, "allow:allow"},
	{"allow", onX + `query = ["ref=main"]`, "GET https://x.com/?q=1", nil, "deny:default"},
	{"allow", onX + `query = ["ref=main"]`, "GET https://x.com/?ref=main&ref=evil", nil, "deny:default"},
	{"allow", onX + `query = ["ref=main"]`, "GET https://x.com/?ref=evil&ref=main", nil, "deny:default"},
	{"allow", onX + `query = ["ref", "n=*"]`, "GET https://x.com/?ref&n=", nil, "allow:allow"},
	{"deny", onX + `query = ["cmd=rm*"]`, "GET https://x.com/?a=1&cmd=ls&c%6Dd=r%6D+-rf", nil, "deny:deny"},
	{"deny", onX + `query = ["cmd=rm*"]`, "GET https://x.com/?CMD=RM", nil, "deny:deny"},
	{"deny", onX + `query = ["cmd=rm*"]`, "GET https://x.com/", func(r *Request) { r.Query = "a=1;cmd=rm" }, "deny:deny"},
	// Headers.
	{"allow", onX + `headers = ["X-Env: test"]`, "GET https://x.com/", header("x-env", "test"), "allow:allow"},
	{"allow", onX + `headers = ["X-Env: test"]`, "GET https://x.com/", header("X-Env", "test", "x-env", "prod"), "deny:default"},
	{"allow", onX + `headers = ["X-Env: test"]`, "GET https://x.com/", nil, "deny:default"},
	{"allow", onX + `headers = ["X-Env: te*"]`, "GET https://x.com/", header("X-Env", "test/1"), "allow:allow"},
	{"deny", onX + `headers = ["Authorization"]`, "GET https://x.com/", header("aUTHORIZATION", "x"), "deny:deny"},
	{"deny", onX + `headers = ["Accept: text/html"]`, "GET https://x.com/", header("accept", "a/b, TEXT/HTML"), "deny:deny"},
	// Process: the guest may not say.
	{"allow", onX + `process = ["git"]`, "GET https://x.com/", func(r *Request) { r.Process = "git" }, "allow:allow"},
	{"allow", onX + `process = ["git"]`, "GET https://x.com/", func(r *Request) { r.Process = "gitx" }, "deny:default"},
	{"allow", onX + `process = ["git"]`, "GET https://x.com/", nil, "deny:default"},
	{"deny", onX + `process = ["curl"]`, "GET https://x.com/", nil, "deny:deny"},
	{"allow", onX + `process = ["/usr/bin/*"]`, "GET https://x.com/", func(r *Request) { r.Process, r.Exe = "git", "/usr/bin/git" }, "allow:allow"},
	{"allow", onX + `process = ["/usr/bin/*"]`, "GET https://x.com/", func(r *Request) { r.Process, r.Exe = "/usr/bin/git", "/tmp/git" }, "deny:default"},
	// Body.
	{"allow", onX + `max_body = "1KB"`, "POST https://x.com/", func(r *Request) { r.BodySize = 1024 }, "allow:allow"},
	{"allow", onX + `max_body = "1KB"`, "POST https://x.com/", func(r *Request) { r.BodySize = 1025 }, "deny:default"},
	{"deny", onX + `min_body = 10`, "POST https://x.com/", func(r *Request) { r.BodySize = 10 }, "deny:deny"},
	{"ask", onX + `min_body = 10`, "POST https://x.com/", func(r *Request) { r.BodySize = 9 }, "deny:default"},
	// MCP.
	{"allow", `mcp_server = ["gh"]`, "MCP gh create_issue", nil, "allow:allow"},
	{"allow", `mcp_server = ["gh"]`, "MCP gh2 create_issue", nil, "deny:default"},
	{"allow", `mcp_server = ["gh"]`, "MCP GH create_issue", nil, "deny:default"},
	{"deny", `mcp_server = ["gh"]`, "MCP GH create_issue", nil, "deny:deny"},
	{"allow", "mcp_server = [\"g*\"]\nmcp_tool = [\"read_*\"]", "MCP gh read_file", nil, "allow:allow"},
	{"allow", "mcp_server = [\"g*\"]\nmcp_tool = [\"read_*\"]", "MCP gh write_file", nil, "deny:default"},
	{"allow", `mcp_tool = ["read_*"]`, "MCP any read_x", nil, "allow:allow"},
	{"allow", `mcp_server = ["gh"]`, "GET https://gh/", nil, "deny:default"},
	{"allow", "", "MCP gh x", nil, "deny:default"},
	{"deny", "", "MCP gh x", nil, "deny:deny"},
	{"ask", onX, "MCP gh x", nil, "deny:default"},
	// Lookups.
	{"allow", `dns_name = ["**.x.com"]`, "DNS a.x.com", nil, "allow:allow"},
	{"allow", `dns_name = ["**.x.com"]`, "GET https://a.x.com/", nil, "deny:default"},
	{"deny", `dns_name = ["**.x.com"]`, "DNS A.X.COM.", nil, "deny:deny"},
	{"deny", `dns_name = ["**.x.com"]`, "GET https://a.x.com/", nil, "deny:default"},
	{"allow", onX + `schemes = ["dns"]`, "DNS x.com", nil, "allow:allow"},
	{"allow", onX + "schemes = [\"dns\"]", "GET https://x.com/", nil, "deny:default"},
}

func TestConditionsHoldAndDoNotLetThemselvesBeDodged(t *testing.T) {
	for _, c := range conditionCases {
		p := compiledFrom(t, "user", rule(c.effect, c.body))
		if got := decided(t, p, c.request, c.change); got != c.want {
			t.Errorf("%s %s: %s is %s, want %s", c.effect, strings.ReplaceAll(c.body, "\n", " "), c.request, got, c.want)
		}
	}
}

func TestURLsThatDisguiseTheirHostAreRefused(t *testing.T) {
	for _, u := range []string{
		"https://x.com@evil.net/", "https://x.com:pw@evil.net/", "https://evil.net\\@x.com/", "https:x.com/", "//x.com/", "/x", "https://", "https:///a",
		"https://x.com:0/", "https://x.com:99999/", "https://127.1/", "https://0x7f.1/", "ftp://x.com/", "https://x.com%2f/", "https://[fe80::1%25eth0]/", "https://a b/",
	} {
		if r, err := ForURL("GET", u); err == nil {
			t.Errorf("%s is %+v", u, r)
		}
	}
	r, err := ForURL("GET", "HTTPS://X.com:443/a%2fb?q=1#frag")
	if err != nil || r.Host != "x.com" || r.Port != 443 || r.Path != "/a%2fb" || r.Query != "q=1" || r.Scheme != "https" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestABodyOfUnknownSizeIsJudgedAsItGrows(t *testing.T) {
	p := compiledFrom(t, "corp", rule("deny", "hosts = [\"x.com\"]\nmin_body = 5000"), "user", rule("allow", "hosts = [\"x.com\"]\nmax_body = 9000"))
	r := request(t, "POST https://x.com/")
	r.BodySize = -1
	if v := p.Decide(&r); v.Effect != Allow || v.BodyLimit != 4999 {
		t.Errorf("at first: %+v", v)
	}
	r.BodySize = 5000
	if v := p.Decide(&r); v.Effect != Deny || v.RuleID != "deny" {
		t.Errorf("past the limit: %+v", v)
	}
	r = request(t, "GET https://x.com/")
	if v := compiledFrom(t, "user", rule("allow", `hosts = ["x.com"]`)).Decide(&r); v.BodyLimit != -1 {
		t.Errorf("no rule looks at the body: %+v", v)
	}
}

func TestPrivateAddressesAreOnlyDialledWhenARuleOpensThem(t *testing.T) {
	p := compiledFrom(t,
		"corp", "[[rule]]\nid = \"shut\"\neffect = \"deny\"\ncidr = [\"198.41.0.0/16\"]",
		"user", rule("allow", "hosts = [\"x.com\"]\ncidr = [\"10.1.0.0/16\", \"::1/128\"]")+rule("ask", `hosts = ["y.com"]`))
	for _, c := range []struct{ request, addr, want string }{
		{"GET https://x.com/", "93.184.216.34", "allow:allow"},
		{"GET https://x.com/", "10.1.2.3", "allow:allow"},
		{"GET https://x.com/", "::ffff:10.1.2.3", "allow:allow"},
		{"GET https://x.com/", "::1", "allow:allow"},
		{"GET https://x.com/", "10.2.2.3", "deny:capsem:private-address"},
		{"GET https://x.com/", "198.41.0.4", "deny:shut"},
		{"GET https://x.com/", "169.254.169.254", "deny:capsem:private-address"},
		{"GET https://x.com/", "::ffff:169.254.169.254", "deny:capsem:private-address"},
		{"GET https://x.com/", "64:ff9b::7f00:1", "deny:capsem:private-address"},
		{"GET https://x.com/", "64:ff9b::5db8:d822", "allow:allow"},
		{"GET https://x.com/", "2002:7f00:1::", "deny:capsem:private-address"},
		{"GET https://x.com/", "fe80::1%eth0", "deny:capsem:private-address"},
		{"GET https://x.com/", "0.0.0.0", "deny:capsem:private-address"},
		{"GET https://x.com/", "100.64.0.1", "deny:capsem:private-address"},
		{"GET https://x.com/", "168.63.129.16", "deny:capsem:private-address"},
		{"GET https://x.com/", "fd00:ec2::254", "deny:capsem:private-address"},
		{"GET https://x.com/", "::7f00:1", "deny:capsem:private-address"},
		{"GET https://x.com/", "255.255.255.255", "deny:capsem:private-address"},
		{"GET https://y.com/", "127.0.0.1", "deny:capsem:private-address"},
		{"GET https://y.com/", "93.184.216.34", "ask:ask"},
		{"GET https://z.com/", "127.0.0.1", "deny:capsem:default"},
	} {
		r := request(t, c.request)
		v := p.DecideDial(&r, netip.MustParseAddr(c.addr))
		if got := v.Effect.String() + ":" + v.RuleID; got != c.want {
			t.Errorf("%s at %s: %s, want %s", c.request, c.addr, got, c.want)
		}
	}
	r := request(t, "GET https://x.com/")
	if v := p.DecideDial(&r, netip.Addr{}); v.Effect != Deny {
		t.Errorf("no address at all: %+v", v)
	}
}
