package policy

import (
	"net/netip"
	"testing"
)

// TestADenyIsNotDodged has requests that some server reads as what is denied.
func TestADenyIsNotDodged(t *testing.T) {
	all := rule("allow", onX)
	for name, c := range map[string]struct {
		deny, request string
		change        func(r *Request)
		want          string
	}{
		"fragment in a query":      {onX + `query = ["action=delete"]`, "GET https://x.com/", func(r *Request) { r.Query = "action=delete#" }, "deny:malformed"},
		"second override":          {onX + `methods = ["DELETE"]`, "POST https://x.com/", header("X-Http-Method-Override", "GET", "X-Http-Method-Override", "DELETE"), "deny:malformed"},
		"override by another name": {onX + `methods = ["DELETE"]`, "POST https://x.com/", header("X-Http-Method", "GET", "X-Method-Override", "DELETE"), "deny:malformed"},
		"the same override twice":  {onX + `methods = ["DELETE"]`, "POST https://x.com/", header("X-Http-Method", "PUT", "X-Method-Override", "PUT"), "allow:allow"},
		"NAT64 of a closed range":  {`cidr = ["198.41.0.0/24"]`, "GET https://x.com/", func(r *Request) { r.Addr = netip.MustParseAddr("64:ff9b::198.41.0.4") }, "deny:deny"},
		"6to4 of a closed range":   {`cidr = ["198.41.0.0/24"]`, "GET https://x.com/", func(r *Request) { r.Addr = netip.MustParseAddr("2002:c629:4::1") }, "deny:deny"},
		"NAT64 of an open address": {`cidr = ["198.41.0.0/24"]`, "GET https://x.com/", func(r *Request) { r.Addr = netip.MustParseAddr("64:ff9b::198.41.1.4") }, "allow:allow"},
	} {
		for range 20 { // whatever the order of a map is
			if got := decided(t, compiledFrom(t, "user", rule("deny", c.deny)+all), c.request, c.change); got != c.want {
				t.Errorf("%s: %s, not %s", name, got, c.want)
				break
			}
		}
	}
}

func TestTranslatedAddressesArePrivateToo(t *testing.T) {
	for _, addr := range []string{"::ffff:0:127.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::169.254.169.254", "2002:7f00:1::"} {
		if PrivateKind(netip.MustParseAddr(addr)) == "" {
			t.Errorf("%s is taken for public", addr)
		}
	}
}
