package policy

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

const (
	maxHost  = 253
	maxLabel = 63
)

// names maps and checks international names as resolvers do; it takes underscores, which real names have.
var names = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false), idna.BidiRule(), idna.CheckHyphens(false))

// NormalHost gives the one spelling of a host that rules are compared with: lower case, A-labels, no dot at the end, and for an
// address its shortest form with IPv4-mapped addresses unmapped. What no resolver should see (ports, user names, numbers that some
// libraries read as addresses) is an error.
func NormalHost(host string) (string, error) {
	if plainHost(host) {
		return host, nil
	}
	if len(host) > 4*maxHost {
		return "", errRule("host is too long")
	}
	if addr, ok := literal(host); ok {
		return addr.String(), nil
	}
	ascii, err := asciiHost(strings.TrimSuffix(host, "."))
	if err != nil {
		return "", errRule("%.80q is no host name", host)
	}
	if addr, ok := literal(ascii); ok {
		return addr.String(), nil
	}
	if !validName(ascii) || endsInNumber(ascii) {
		return "", errRule("%.80q is no host name", host)
	}
	return ascii, nil
}

// plainHost says that a host is a normal name already, which nearly all are.
func plainHost(host string) bool {
	return validName(host) && !endsInNumber(host) && !strings.Contains(host, "xn--")
}

func asciiHost(host string) (string, error) {
	ascii, err := names.ToASCII(host)
	if err != nil || !strings.Contains(ascii, "xn--") {
		return strings.ToLower(ascii), err //nolint:wrapcheck // the caller says which host
	}
	// An A-label that stands for something else than it decodes to is a disguise.
	unicode, err := names.ToUnicode(ascii)
	if err != nil {
		return "", err //nolint:wrapcheck // the caller says which host
	}
	again, err := names.ToASCII(unicode)
	if err == nil && again != ascii {
		err = errRule("ambiguous name")
	}
	return strings.ToLower(ascii), err //nolint:wrapcheck // the caller says which host
}

// literal reads an IP address, with or without brackets. A zone is refused: it names an interface of the host.
func literal(host string) (netip.Addr, bool) {
	if strings.HasPrefix(host, "[") != strings.HasSuffix(host, "]") {
		return netip.Addr{}, false
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if inner == "" || (inner[0] > '9' && !strings.Contains(inner, ":")) {
		return netip.Addr{}, false // names are by far the most frequent
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || addr.Zone() != "" || (inner != host && addr.Is4()) {
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

// validName checks letters (lower case only), digits, - and _ in labels of legal lengths.
func validName(host string) bool {
	if host == "" || len(host) > maxHost {
		return false
	}
	label := 0
	for i := range len(host) {
		c := host[i]
		switch {
		case c == '.':
			if label == 0 {
				return false
			}
			label = 0
			continue
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
		if label++; label > maxLabel {
			return false
		}
	}
	return label > 0
}

// endsInNumber finds names such as 127.1, 0x7f.1 or 2130706433, which some resolvers take for an address.
func endsInNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" || last[0] < '0' || last[0] > '9' {
		return false
	}
	digits := strings.TrimLeft(last, "0123456789") == ""
	return digits || (strings.HasPrefix(last, "0x") && strings.TrimLeft(last[2:], "0123456789abcdef") == "")
}

// HostPattern is a host in a rule: "a.b", "*.b" (exactly one label more), "**.b" (b and everything below it), "**" (any host), an
// IP address, or a range of them such as "10.0.0.0/8". It is made by ParseHostPattern.
type HostPattern string

// ParseHostPattern checks a pattern and brings it into its normal spelling.
func ParseHostPattern(s string) (HostPattern, error) {
	if len(s) > maxPattern {
		return "", errRule("host pattern is too long")
	}
	if s == "**" {
		return "**", nil
	}
	if strings.Contains(s, "/") {
		p, err := parseCIDR(s)
		return HostPattern(p.String()), err
	}
	stars, rest := splitStars(s)
	host, err := NormalHost(rest)
	if err != nil {
		return "", errRule("%.80q is no host pattern (a name, *.name, **.name, **, or an address)", s)
	}
	if _, ip := literal(host); ip && stars != "" {
		return "", errRule("%.80q: an address has no names below it", s)
	}
	if len(stars)+len(host) > maxHost {
		return "", errRule("%.80q is longer than any name", s)
	}
	return HostPattern(stars + host), nil
}

func splitStars(s string) (stars, rest string) {
	for _, stars := range []string{"**.", "*."} {
		if rest, ok := strings.CutPrefix(s, stars); ok {
			return stars, rest
		}
	}
	return "", s
}

// parseCIDR reads a range; one whose address has bits below its mask is a mistake.
func parseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Masked() != p || p.Addr().Is4In6() {
		return netip.Prefix{}, errRule("%.60q is no address range such as 10.0.0.0/8", s)
	}
	return p, nil
}

// Match reports whether a normal host is covered by the pattern.
func (p HostPattern) Match(host string) bool {
	if p == "**" {
		return true
	}
	stars, rest := splitStars(string(p))
	switch stars {
	case "*.":
		label, ok := strings.CutSuffix(host, "."+rest)
		return ok && label != "" && !strings.Contains(label, ".")
	case "**.":
		return host == rest || strings.HasSuffix(host, "."+rest)
	}
	if !strings.Contains(rest, "/") {
		return host == rest
	}
	addr, ip := literal(host)
	prefix, err := netip.ParsePrefix(rest)
	return ip && err == nil && prefix.Contains(addr)
}

// covers reports whether every host of q is one of p.
func (p HostPattern) covers(q HostPattern) bool {
	pStars, pRest := splitStars(string(p))
	qStars, qRest := splitStars(string(q))
	switch {
	case p == q || p == "**":
		return true
	case q == "**" || qStars == "**." && pStars != "**." || qStars == "*." && pStars == "":
		return false
	case strings.Contains(qRest, "/"):
		a, err1 := netip.ParsePrefix(pRest)
		b, err2 := netip.ParsePrefix(qRest)
		return err1 == nil && err2 == nil && a.Bits() <= b.Bits() && a.Contains(b.Addr())
	case qStars == "*." && pStars == "*.":
		return false // equal ones are told above
	}
	return p.Match(qRest)
}
