package policy

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"capsem/core/fault"
)

// text is a policy as it is written.
type text struct {
	Presets []string   `toml:"presets,omitempty"`
	Rule    []ruleText `toml:"rule,omitempty"`
	Git     []gitText  `toml:"git,omitempty"`
}

// ruleText is a rule as it is written. Ports are numbers or "from-to", sizes numbers or "10MB".
type ruleText struct {
	ID        string   `toml:"id"`
	Effect    string   `toml:"effect"`
	Reason    string   `toml:"reason,omitempty"`
	Hosts     []string `toml:"hosts,omitempty"`
	Ports     []any    `toml:"ports,omitempty"`
	Schemes   []string `toml:"schemes,omitempty"`
	Methods   []string `toml:"methods,omitempty"`
	Paths     []string `toml:"paths,omitempty"`
	Query     []string `toml:"query,omitempty"`
	Headers   []string `toml:"headers,omitempty"`
	Process   []string `toml:"process,omitempty"`
	MinBody   any      `toml:"min_body,omitempty"`
	MaxBody   any      `toml:"max_body,omitempty"`
	MCPServer []string `toml:"mcp_server,omitempty"`
	MCPTool   []string `toml:"mcp_tool,omitempty"`
	DNSName   []string `toml:"dns_name,omitempty"`
	CIDR      []string `toml:"cidr,omitempty"`
	When      string   `toml:"when,omitempty"`
}

// Parse reads a policy text (TOML, tables [[rule]] and [[git]]) for one layer. Whatever is unknown, too large or can never match is an error that names
// the line. The rules of the text's presets come after its own.
func Parse(data string, layer Layer) (*Set, error) {
	var t text
	if err := decode(data, &t); err != nil {
		return nil, err
	}
	if len(t.Rule) > MaxRules {
		return nil, errRule("the policy has more than %d rules", MaxRules)
	}
	lines := tableLines(data, "rule")
	s := &Set{Layer: layer}
	seen := map[string]bool{}
	for i := range t.Rule {
		r, err := t.Rule[i].rule()
		if i < len(lines) {
			r.line = lines[i]
		}
		if err == nil {
			_, err = prepare(&r, layer)
		}
		if err == nil && seen[r.ID] {
			err = errRule("there is another rule with this id")
		}
		if err != nil {
			return nil, inRule(err, layer, &r, i)
		}
		seen[r.ID] = true
		s.Rules = append(s.Rules, r)
	}
	if err := s.parseGit(t.Git, data); err != nil {
		return nil, err
	}
	if err := s.addPresets(t.Presets); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Set) addPresets(names []string) error {
	if len(names) > maxList {
		return errRule("too many presets")
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return errRule("preset %.40q is there twice", name)
		}
		p, err := Preset(name, s.Layer)
		if err != nil {
			return err
		}
		s.Rules, s.Git = append(s.Rules, p.Rules...), append(s.Git, p.Git...)
	}
	return nil
}

// decode reads strict TOML into a value.
func decode(data string, into any) error {
	if len(data) > MaxText {
		return errRule("the text is larger than %d bytes", MaxText)
	}
	err := toml.NewDecoder(strings.NewReader(data)).DisallowUnknownFields().Decode(into)
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(unknown.Errors) > 0 {
		e := &unknown.Errors[0]
		line, _ := e.Position()
		return errRule("line %d: unknown key %.80q", line, strings.Join(e.Key(), "."))
	}
	if wrong, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := wrong.Position()
		return errRule("line %d, column %d: %.200s", line, column, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "the text is no policy")
	}
	return nil
}

// tableLines finds the lines of the headers [[name]].
func tableLines(data, name string) []int {
	var p unstable.Parser
	p.Reset([]byte(data))
	var out []int
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.ArrayTable {
			continue
		}
		key := e.Key()
		if key.Next() && key.IsLast() && string(key.Node().Data) == name {
			out = append(out, p.Shape(key.Node().Raw).Start.Line)
		}
	}
	return out
}

// rule reads what is written. Only what the text form has on top is checked here.
func (t *ruleText) rule() (Rule, error) {
	r := Rule{
		ID: t.ID, Reason: t.Reason, Schemes: t.Schemes, Methods: t.Methods, Paths: t.Paths, Query: t.Query, Headers: t.Headers,
		Process: t.Process, MCPServer: t.MCPServer, MCPTool: t.MCPTool, When: t.When,
	}
	var errs [6]error
	r.Effect, errs[0] = ParseEffect(t.Effect)
	r.Hosts, errs[1] = hostPatterns(t.Hosts)
	r.DNSName, errs[2] = hostPatterns(t.DNSName)
	r.MinBody, errs[3] = size(t.MinBody)
	r.MaxBody, errs[4] = size(t.MaxBody)
	r.Ports, errs[5] = ports(t.Ports)
	for _, err := range errs {
		if err != nil {
			return r, err
		}
	}
	for _, c := range t.CIDR {
		p, err := parseCIDR(c)
		if err != nil {
			return r, err
		}
		r.CIDR = append(r.CIDR, p)
	}
	return r, t.empty()
}

// empty refuses a condition that is written but has no entries: it would be no condition at all.
func (t *ruleText) empty() error {
	for _, l := range [][]string{t.Hosts, t.Schemes, t.Methods, t.Paths, t.Query, t.Headers, t.Process, t.MCPServer, t.MCPTool, t.DNSName, t.CIDR} {
		if l != nil && len(l) == 0 {
			return errRule("an empty list is no condition: leave it out")
		}
	}
	if t.Ports != nil && len(t.Ports) == 0 {
		return errRule("an empty list is no condition: leave it out")
	}
	return nil
}

func hostPatterns(texts []string) ([]HostPattern, error) {
	var out []HostPattern
	for _, t := range texts {
		p, err := ParseHostPattern(t)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func ports(texts []any) ([]PortRange, error) {
	var out []PortRange
	for _, t := range texts {
		var p PortRange
		switch t := t.(type) {
		case int64:
			if t < 1 || t > 65535 {
				return nil, errRule("%d is no port", t)
			}
			p = PortRange{uint16(t), uint16(t)}
		case string:
			from, to, ranged := strings.Cut(t, "-")
			if !ranged {
				to = from
			}
			a, err1 := strconv.ParseUint(from, 10, 16)
			b, err2 := strconv.ParseUint(to, 10, 16)
			if errors.Join(err1, err2) != nil {
				return nil, errRule("%.40q is no port and no range such as 8000-8010", t)
			}
			p = PortRange{uint16(a), uint16(b)}
		default:
			return nil, errRule("a port is a number or a range such as \"8000-8010\"")
		}
		out = append(out, p)
	}
	return out, nil
}

var units = []struct {
	suffix string
	bytes  int64
}{{"KB", 1 << 10}, {"MB", 1 << 20}, {"GB", 1 << 30}, {"B", 1}}

func size(v any) (int64, error) {
	switch v := v.(type) {
	case nil:
		return 0, nil
	case int64:
		if v > 0 {
			return v, nil
		}
	case string:
		for _, u := range units {
			if digits, ok := strings.CutSuffix(v, u.suffix); ok {
				n, err := strconv.ParseInt(digits, 10, 64)
				if err == nil && n > 0 && n <= (1<<62)/u.bytes {
					return n * u.bytes, nil
				}
				break
			}
		}
	}
	return 0, errRule("%.40v is no size such as 65536 or \"10MB\"", v)
}

// Format writes rules as the text that Parse reads.
func Format(rules []Rule) (string, error) {
	var b bytes.Buffer
	for i := range rules {
		if i > 0 {
			b.WriteByte('\n')
		}
		t := written(&rules[i])
		enc := toml.NewEncoder(&b)
		if err := enc.Encode(text{Rule: []ruleText{t}}); err != nil {
			return "", fault.Wrap(err, fault.Internal, "cannot write rule %.80q", rules[i].ID)
		}
	}
	return b.String(), nil
}

func written(r *Rule) ruleText {
	t := ruleText{
		ID: r.ID, Effect: r.Effect.String(), Reason: r.Reason, Schemes: r.Schemes, Methods: r.Methods, Paths: r.Paths, Query: r.Query,
		Headers: r.Headers, Process: r.Process, MCPServer: r.MCPServer, MCPTool: r.MCPTool, When: r.When,
		Hosts: stringsOf(r.Hosts), DNSName: stringsOf(r.DNSName), CIDR: textsOf(r.CIDR),
	}
	for _, p := range r.Ports {
		if p.From == p.To {
			t.Ports = append(t.Ports, int64(p.From))
		} else {
			t.Ports = append(t.Ports, p.String())
		}
	}
	if r.MinBody > 0 {
		t.MinBody = r.MinBody
	}
	if r.MaxBody > 0 {
		t.MaxBody = r.MaxBody
	}
	return t
}

func stringsOf(list []HostPattern) []string {
	var out []string
	for _, p := range list {
		out = append(out, string(p))
	}
	return out
}

func textsOf(list []netip.Prefix) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.String())
	}
	return out
}
