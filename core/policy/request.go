package policy

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"capsem/core/fault"
)

// Request is what is known of something a VM wants to do. A zero field is not known yet, except where it says otherwise: Method stands for
// Path, Query, Header and BodySize too, and MCPServer for MCPTool.
type Request struct {
	// VM is the VM's name; it is shown and given to "when", never matched.
	VM string
	// Host is a name or an address literal, without port.
	Host string
	// Addr is the address that Host was resolved to and that is about to be dialled.
	Addr netip.Addr
	Port uint16
	// Scheme is http, https, ws, wss, tcp, or dns for a name lookup.
	Scheme string
	Method string
	// Path is the path as it stands in the request line, still encoded; Query what follows the question mark.
	Path, Query string
	// Header are the header fields, in any spelling.
	Header map[string][]string
	// Process and Exe are the name and the program path that the guest claims.
	Process, Exe string
	// BodySize is the length of the body; -1 is not known.
	BodySize int64
	// MCPServer and MCPTool make it a call of a tool.
	MCPServer, MCPTool string
	// MCPArgs are the arguments of that call, a JSON object; "when" sees them as args.
	MCPArgs []byte
}

// Fact is a set of the fields of a request.
type Fact uint16

// The facts that rules can have conditions on.
const (
	FactHost Fact = 1 << iota
	FactPort
	FactScheme
	FactMethod
	FactPath
	FactQuery
	FactHeader
	FactProcess
	FactBody
	FactMCP
	FactDNSName
	FactAddr
	FactWhen
)

var factNames = []string{
	"host", "port", "scheme", "method", "path", "query", "header", "process", "body", "mcp", "dns_name", "cidr", "when",
}

// factsHTTP are known together, with the head of an HTTP request.
const factsHTTP = FactMethod | FactPath | FactQuery | FactHeader | FactBody

// Names lists the facts in a set.
func (f Fact) Names() []string {
	var out []string
	for i, name := range factNames {
		if f&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// String is the names with commas.
func (f Fact) String() string { return strings.Join(f.Names(), ",") }

// errRule is a mistake in a policy or a request.
func errRule(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

var defaultPorts = map[string]uint16{"http": 80, "ws": 80, "https": 443, "wss": 443}

// ForURL makes the request of a method and an absolute URL, as "policy check" and tests have them.
func ForURL(method, rawURL string) (Request, error) {
	if len(rawURL) > maxPath+maxQuery {
		return Request{}, errRule("the URL is too long")
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return Request{}, errRule("%.80q is no URL", rawURL)
	}
	scheme := strings.ToLower(u.Scheme)
	port, known := defaultPorts[scheme]
	if !known || u.Host == "" || u.Opaque != "" {
		return Request{}, errRule("%.80q is no absolute http, https, ws or wss URL", rawURL)
	}
	if u.User != nil {
		return Request{}, errRule("%.80q has a user name in it, which only serves to disguise its host", rawURL)
	}
	host, err := NormalHost(u.Hostname())
	if err != nil {
		return Request{}, err
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return Request{}, errRule("%.80q has no valid port", rawURL)
		}
		port = uint16(n)
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return Request{Host: host, Port: port, Scheme: scheme, Method: method, Path: path, Query: u.RawQuery}, nil
}

// String describes the request in one line.
func (r *Request) String() string {
	switch {
	case r.MCPServer != "":
		return "MCP " + r.MCPServer + " " + r.MCPTool
	case r.Scheme == "dns":
		return "DNS " + r.Host
	case r.Method == "":
		return strings.ToUpper(r.Scheme) + " " + r.hostPort()
	}
	return r.Method + " " + r.Scheme + "://" + r.hostPort() + r.Path
}

// hostPort leaves out the port that the scheme has anyway.
func (r *Request) hostPort() string {
	host := r.Host
	if strings.Contains(host, ":") {
		host = "[" + strings.Trim(host, "[]") + "]"
	}
	if r.Port == 0 || r.Port == defaultPorts[r.Scheme] {
		return host
	}
	return host + ":" + strconv.Itoa(int(r.Port))
}
