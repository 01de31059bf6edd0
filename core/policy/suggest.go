package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	// maxSuggested bounds the requests that are looked at, exactPaths how many paths of one place are listed before their common beginning is
	// taken instead, maxSuggestPaths the paths of one rule.
	maxSuggested    = 100_000
	exactPaths      = 3
	maxSuggestPaths = 20
)

// place is what one suggested rule is about.
type place struct {
	scheme, host string
	port         uint16
	server       string
}

// wanted is what was refused at one place.
type wanted struct {
	// paths are by method, tools are of an MCP server.
	paths map[string]map[string]bool
	tools map[string]bool
	// opaque says that there was a request without a method: a connection or a tunnel.
	opaque bool
}

// Suggest gives the narrowest rules that would have allowed what was refused: a host, port and scheme, the methods, and exact paths or,
// where there are many, their common beginning up to a slash. Requests that no rule can allow are left out. Of a lookup, or of a connection that
// ended before its first request, nobody knows what would have come: there the rule is an ask, which lets it through as far as the first request.
func Suggest(refused []Request) []Rule {
	places := map[place]*wanted{}
	lookups := map[string]bool{}
	for i := range refused[:min(len(refused), maxSuggested)] {
		collect(places, lookups, &refused[i])
	}
	for at := range places {
		delete(lookups, at.host)
	}
	var out []Rule
	for _, at := range slices.SortedFunc(maps.Keys(places), comparePlaces) {
		out = append(out, places[at].rules(at)...)
	}
	for _, host := range slices.Sorted(maps.Keys(lookups)) {
		out = append(out, Rule{
			Effect: Ask, Reason: "refused before: looking up " + host, Hosts: []HostPattern{HostPattern(host)}, Schemes: []string{"https"},
		})
	}
	for i := range out {
		out[i].ID = fmt.Sprintf("suggested-%d", i+1)
	}
	return out
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.server, b.server), cmp.Compare(a.host, b.host), cmp.Compare(a.scheme, b.scheme), cmp.Compare(a.port, b.port))
}

func collect(places map[place]*wanted, lookups map[string]bool, req *Request) {
	var f facts
	if f.read(req) != "" {
		return
	}
	at := place{scheme: req.Scheme, host: f.host, port: req.Port}
	switch {
	case f.mcp:
		if len(req.MCPServer) > maxPattern/2 || len(req.MCPTool) > maxPattern/2 {
			return
		}
		at = place{server: req.MCPServer}
	case req.Scheme == "dns":
		lookups[f.host] = true
		return
	case req.Port == 0:
		return
	}
	w := places[at]
	if w == nil {
		w = &wanted{paths: map[string]map[string]bool{}, tools: map[string]bool{}}
		places[at] = w
	}
	switch {
	case f.mcp:
		w.tools[req.MCPTool] = true
	case !f.http:
		w.opaque = true
	case f.paths.n == 1 && f.override == "" && req.Method == strings.ToUpper(req.Method) && len(f.paths.form[0]) < maxPattern/2:
		if w.paths[req.Method] == nil {
			w.paths[req.Method] = map[string]bool{}
		}
		w.paths[req.Method][f.paths.form[0]] = true
	}
}

func (w *wanted) rules(at place) []Rule {
	if at.server != "" {
		r := Rule{Effect: Allow, Reason: "refused before: tools of " + shown(at.server), MCPServer: []string{escapeGlob(at.server)}}
		for _, tool := range slices.Sorted(maps.Keys(w.tools)) {
			if tool != "" && len(r.MCPTool) < maxList {
				r.MCPTool = append(r.MCPTool, escapeGlob(tool))
			}
		}
		if len(r.MCPTool) == 0 {
			return nil // the call did not come as far as to name a tool
		}
		return []Rule{r}
	}
	base := Rule{Effect: Allow, Hosts: []HostPattern{HostPattern(at.host)}}
	if at.scheme != "" {
		base.Schemes = []string{at.scheme}
	}
	if at.scheme == "tcp" || at.port != defaultPorts[at.scheme] {
		base.Ports = []PortRange{{at.port, at.port}}
	}
	if at.scheme == "tcp" {
		base.Reason = fmt.Sprintf("refused before: a connection to %s port %d", at.host, at.port)
		return []Rule{base}
	}
	var out []Rule
	if w.opaque && len(w.paths) == 0 {
		base.Effect, base.Reason = Ask, "refused before: a connection to "+at.host
		return []Rule{base}
	}
	// Methods with the same paths share a rule.
	byPaths := map[string][]string{}
	for method, set := range w.paths {
		key := strings.Join(merge(set), "\n")
		byPaths[key] = append(byPaths[key], method)
	}
	for _, key := range slices.Sorted(maps.Keys(byPaths)) {
		r := base
		r.Methods, r.Paths = byPaths[key], strings.Split(key, "\n")
		slices.Sort(r.Methods)
		r.Reason = "refused before: " + strings.Join(r.Methods, ", ") + " on " + at.host
		out = append(out, r)
	}
	return out
}

// merge makes globs of paths: the paths themselves while they are few, else, for those with the same first segment, what they have in common.
func merge(set map[string]bool) []string {
	paths := slices.Sorted(maps.Keys(set))
	groups := map[string][]string{}
	for _, p := range paths {
		first, _, _ := strings.Cut(p[1:], "/")
		groups[first] = append(groups[first], p)
	}
	var out []string
	for _, first := range slices.Sorted(maps.Keys(groups)) {
		group := groups[first]
		if len(group) <= exactPaths {
			for _, p := range group {
				out = append(out, escapeGlob(p))
			}
			continue
		}
		out = append(out, escapeGlob(common(group))+"/**")
	}
	if len(out) > maxSuggestPaths {
		return []string{"/**"}
	}
	return out
}

// common is the longest beginning of whole segments that all paths have.
func common(paths []string) string {
	prefix := paths[0]
	for _, p := range paths[1:] {
		for p != prefix && !strings.HasPrefix(p, prefix+"/") {
			prefix = prefix[:strings.LastIndexByte(prefix, '/')]
		}
	}
	return prefix
}
