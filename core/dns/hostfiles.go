package dns

import (
	"net"
	"net/netip"
	"strings"

	"capsem/core/policy"
)

const (
	// maxServers is how many nameservers of resolv.conf count, as in resolv.conf(5).
	maxServers = 3
	// maxHostNames bounds the names taken from a hosts file, maxAddrs the addresses of one name.
	maxHostNames, maxAddrs = 100_000, 64
)

// parseResolvConf takes the nameservers. Search domains do not count: what the guest asks for is judged, not what the host would make of it.
func parseResolvConf(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(out) == maxServers {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil {
			out = append(out, net.JoinHostPort(addr.String(), "53"))
		}
	}
	return out
}

// parseHosts reads a file in the form of /etc/hosts.
func parseHosts(text string) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil || addr.Zone() != "" {
			continue
		}
		for _, name := range fields[1:] {
			name, err := policy.NormalHost(name)
			if err == nil && len(out) < maxHostNames && len(out[name]) < maxAddrs {
				out[name] = append(out[name], addr.Unmap())
			}
		}
	}
	return out
}
