package policy

import (
	"net/netip"
	"strings"
)

// schemes is a set of schemes.
type schemes uint8

const (
	schemeHTTP schemes = 1 << iota
	schemeHTTPS
	schemeWS
	schemeWSS
	schemeTCP
	schemeDNS

	schemesWeb = schemeHTTP | schemeHTTPS | schemeWS | schemeWSS
	// schemesConn are those that a connection can turn out to have.
	schemesConn = schemesWeb | schemeTCP
)

var schemeNames = []string{"http", "https", "ws", "wss", "tcp", "dns"}

func schemeOf(name string) schemes {
	switch name {
	case "https":
		return schemeHTTPS
	case "http":
		return schemeHTTP
	case "wss":
		return schemeWSS
	case "ws":
		return schemeWS
	case "tcp":
		return schemeTCP
	case "dns":
		return schemeDNS
	}
	return 0
}

func (s schemes) names() []string {
	var out []string
	for i, name := range schemeNames {
		if s&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// facts are a request made ready for matching. It lives on the stack of one decision.
type facts struct {
	req    *Request
	host   string
	ip     netip.Addr
	scheme schemes
	mcp    bool
	http   bool
	paths  readings
	// override is a method that a header asks the server to use instead.
	override string
	// query is parsed by the first rule that needs it, strictly and loosely.
	query, loose []pair
	queried      bool
	// bodyLimit is how large an unsent body may get before the verdict has to be made anew; -1 is no limit.
	bodyLimit int64
}

// read checks a request; the reason is empty if it is sound.
func (f *facts) read(req *Request) (malformed string) {
	f.req, f.bodyLimit = req, -1
	if req.MCPServer != "" {
		f.mcp = true
		return ""
	}
	var err error
	if f.host, err = NormalHost(req.Host); err != nil {
		return err.Error()
	}
	f.ip, _ = literal(f.host)
	if req.Scheme != "" {
		if f.scheme = schemeOf(req.Scheme); f.scheme == 0 {
			return "unknown scheme"
		}
	}
	if req.Method == "" || f.scheme&(schemeTCP|schemeDNS) != 0 {
		return ""
	}
	f.http = true
	if !token(req.Method) {
		return "the method is no word"
	}
	if f.paths, err = readPath(req.Path); err != nil {
		return err.Error()
	}
	if len(req.Query) > maxQuery {
		return "the query is too long"
	}
	if strings.Contains(req.Query, "#") {
		return "the query has a fragment, which servers drop"
	}
	agreed := false
	if f.override, agreed = overridden(req.Header); !agreed {
		return "the header names several methods to be used instead"
	}
	return ""
}

// token is what RFC 9110 allows as a method.
func token(s string) bool {
	if s == "" || len(s) > 40 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return true
}

// overridden finds a header by which frameworks let a POST stand for another method. If there are several they have to agree: which one
// a server takes nobody knows.
func overridden(header map[string][]string) (method string, agreed bool) {
	for name, values := range header {
		if len(name) < len("X-HTTP-Method") || lower(name[0]) != 'x' || len(values) == 0 {
			continue
		}
		switch strings.ToLower(strings.ReplaceAll(name, "_", "-")) {
		case "x-http-method-override", "x-http-method", "x-method-override":
			for _, v := range values {
				if v = strings.TrimSpace(v); method != "" && v != method {
					return "", false
				}
				method = v
			}
		}
	}
	return method, true
}

// bodySize is the size to judge by: an unknown one is judged as empty, and the verdict says how far that holds.
func (f *facts) bodySize() (size int64, known bool) {
	return max(f.req.BodySize, 0), f.req.BodySize >= 0
}

// boundary notes that a rule changes its mind when the body has this many bytes.
func (f *facts) boundary(at int64) {
	if at > 0 && (f.bodyLimit < 0 || at <= f.bodyLimit) {
		f.bodyLimit = at - 1
	}
}

func (f *facts) parseQuery() {
	if f.queried {
		return
	}
	f.queried = true
	f.query = parseQuery(f.req.Query, false)
	f.loose = f.query
	if strings.Contains(f.req.Query, ";") {
		f.loose = append(parseQuery(f.req.Query, true), f.query...)
	}
}
