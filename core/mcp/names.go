package mcp

import (
	"strings"

	"capsem/core/fault"
)

const (
	// Separator stands between the name of a server and that of its tool or prompt.
	Separator = "__"
	// Local is the name of the built-in server.
	Local = "local"
	// maxServerName and maxFullName bound names.
	maxServerName, maxFullName = 40, 128
	// scheme begins the URIs of resources.
	scheme = "capsem://"
	// maxURI bounds the URI of a resource.
	maxURI = 4 << 10
)

// ValidServer checks the name that the owner gives to a server.
func ValidServer(name string) error {
	switch {
	case name == "" || len(name) > maxServerName || !PlainName(name) || strings.Contains(name, Separator) || strings.HasPrefix(name, "_") || strings.HasSuffix(name, "_"):
		return fault.New(fault.Invalid, "%.60q is no name for an MCP server: up to %d letters, digits, - and single _", name, maxServerName)
	case strings.EqualFold(name, "builtin") || strings.EqualFold(name, "capsem") || Skeleton(name) == Skeleton(Local):
		return fault.New(fault.Invalid, "an MCP server cannot be called %q: that is capsem's own", name)
	}
	return nil
}

// PlainName reports whether a name is made of letters, digits, - and _ of ASCII: what all clients take, and what has no look-alikes in
// other scripts.
func PlainName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return name != ""
}

// Join is the name of a server's tool or prompt for a VM.
func Join(server, name string) string { return server + Separator + name }

// Split takes such a name apart, at the first separator.
func Split(full string) (server, name string, ok bool) {
	server, name, ok = strings.Cut(full, Separator)
	return server, name, ok && server != "" && name != ""
}

// Skeleton is the same for names that look the same, or that a hasty reader takes for the same.
func Skeleton(name string) string {
	name = strings.ToLower(name)
	name = strings.NewReplacer("_", "", "-", "", ".", "", "0", "o", "1", "l", "i", "l", "5", "s", "2", "z", "8", "b").Replace(name)
	return strings.NewReplacer("rn", "m", "vv", "w", "cl", "d").Replace(name)
}

// LookAlike is the one of the names that a name could be taken for; empty if there is none. The name itself does not count.
func LookAlike(name string, names []string) string {
	for _, other := range names {
		if other != name && Skeleton(other) == Skeleton(name) {
			return other
		}
	}
	return ""
}

// JoinURI is the URI of a server's resource, or a template of URIs, for a VM.
func JoinURI(server, uri string) string { return scheme + server + "/" + uri }

// SplitURI takes it apart.
func SplitURI(full string) (server, uri string, ok bool) {
	rest, ok := strings.CutPrefix(full, scheme)
	if !ok || len(full) > maxURI {
		return "", "", false
	}
	server, uri, ok = strings.Cut(rest, "/")
	return server, uri, ok && server != "" && uri != ""
}
