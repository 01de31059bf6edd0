package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Case is one line of a table of expected verdicts.
type Case struct {
	Name    string
	Request Request
	// Early asks Possible instead of Decide.
	Early bool
	// Expect is the verdict, Rule (optional) the rule that must have made it.
	Expect Effect
	Rule   string

	line int
}

// Result is what became of a case.
type Result struct {
	Case    Case
	Verdict Verdict
	OK      bool
	// Message says what is wrong, with the line of the case.
	Message string
}

type tableText struct {
	Case []caseText `toml:"case"`
}

type caseText struct {
	Name    string   `toml:"name"`
	Request string   `toml:"request"`
	Process string   `toml:"process"`
	Exe     string   `toml:"exe"`
	VM      string   `toml:"vm"`
	Headers []string `toml:"headers"`
	Body    any      `toml:"body"`
	Early   bool     `toml:"early"`
	Expect  string   `toml:"expect"`
	Rule    string   `toml:"rule"`
}

// ParseTable reads a table of expected verdicts, TOML with tables [[case]]: request (see ParseRequest), expect, and optionally name, rule,
// process, exe, vm, headers, body (its size) and early.
func ParseTable(data string) ([]Case, error) {
	var t tableText
	if err := decode(data, &t); err != nil {
		return nil, err
	}
	if len(t.Case) > MaxRules {
		return nil, errRule("the table has more than %d cases", MaxRules)
	}
	lines := tableLines(data, "case")
	out := make([]Case, 0, len(t.Case))
	for i := range t.Case {
		c, err := t.Case[i].read()
		if i < len(lines) {
			c.line = lines[i]
		}
		if err != nil {
			return nil, errRule("line %d, case %d %.80q: %s", c.line, i+1, t.Case[i].Name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func (t *caseText) read() (Case, error) {
	c := Case{Name: t.Name, Early: t.Early, Rule: t.Rule}
	var err error
	if c.Expect, err = ParseEffect(t.Expect); err != nil {
		return c, err
	}
	if c.Request, err = ParseRequest(t.Request); err != nil {
		return c, err
	}
	if c.Name == "" {
		c.Name = t.Request
	}
	c.Request.Process, c.Request.Exe, c.Request.VM = t.Process, t.Exe, t.VM
	if c.Request.BodySize, err = size(t.Body); err != nil {
		return c, err
	}
	for _, h := range t.Headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || !token(name) {
			return c, errRule("header %.80q is not of the form name: value", h)
		}
		if c.Request.Header == nil {
			c.Request.Header = map[string][]string{}
		}
		c.Request.Header[name] = append(c.Request.Header[name], strings.TrimSpace(value))
	}
	return c, nil
}

// ParseRequest reads a request in one line: "GET https://host/path" (any method), "DNS name", "TCP host:port", "MCP server tool", or
// "CONNECT host:port" for a connection that has said nothing yet.
func ParseRequest(line string) (Request, error) {
	words := strings.Fields(line)
	if len(words) < 2 || len(words) > 3 || (len(words) == 3) != (words[0] == "MCP") {
		return Request{}, errRule("%.80q is none of: METHOD URL, DNS NAME, TCP HOST:PORT, CONNECT HOST:PORT, MCP SERVER TOOL", line)
	}
	switch words[0] {
	case "MCP":
		return Request{MCPServer: words[1], MCPTool: words[2]}, nil
	case "DNS":
		return Request{Scheme: "dns", Host: words[1]}, nil
	case "TCP":
		return hostPort("tcp", words[1])
	case "CONNECT":
		return hostPort("", words[1])
	}
	return ForURL(words[0], words[1])
}

func hostPort(scheme, s string) (Request, error) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 {
		return Request{}, errRule("%.80q is not of the form host:port", s)
	}
	port, err := strconv.ParseUint(s[colon+1:], 10, 16)
	if err != nil || port == 0 {
		return Request{}, errRule("%.80q has no valid port", s)
	}
	host, err := NormalHost(s[:colon])
	return Request{Scheme: scheme, Host: host, Port: uint16(port)}, err
}

// RunTests judges every case of a table.
func RunTests(p *Policy, table []Case) []Result {
	out := make([]Result, 0, len(table))
	for _, c := range table {
		r := Result{Case: c}
		if c.Early {
			r.Verdict = p.Possible(&c.Request)
		} else {
			r.Verdict = p.Decide(&c.Request)
		}
		switch {
		case r.Verdict.Effect != c.Expect:
			r.Message = fmt.Sprintf("is %s by rule %s (%s), not %s", r.Verdict.Effect, r.Verdict.RuleID, r.Verdict.Reason, c.Expect)
		case c.Rule != "" && r.Verdict.RuleID != c.Rule:
			r.Message = fmt.Sprintf("is %s by rule %s, not by %s", r.Verdict.Effect, r.Verdict.RuleID, c.Rule)
		default:
			r.OK = true
			out = append(out, r)
			continue
		}
		r.Message = fmt.Sprintf("line %d, %s: %s", c.line, c.Name, r.Message)
		out = append(out, r)
	}
	return out
}

// Failed are the results that are not as expected.
func Failed(results []Result) []Result {
	return slices.DeleteFunc(slices.Clone(results), func(r Result) bool { return r.OK })
}
