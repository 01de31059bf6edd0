package clients

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"capsem/core/detect"
	"capsem/core/fault"
	"capsem/core/mcp"
)

// Proposal is a server of a client's settings as capsem would use it: what may be secret of it is kept elsewhere.
type Proposal struct {
	// Definition refers to Secrets.
	Definition mcp.Definition
	Secrets    []ProposedSecret
	// Lost are settings that capsem has no equal for.
	Lost []string
}

// ProposedSecret is a value that belongs into the store of secrets.
type ProposedSecret struct {
	// Name is for the store, Of the variable or header that has it.
	Name, Of string
	// Value is what the settings have. When they only name a variable of the user's environment, that is Variable; when both are empty, the
	// client asks for it, and so must we.
	Value, Variable string
}

var (
	// variable is a reference to the environment; any other "${" is something that only the client knows.
	variable = regexp.MustCompile(`^\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)\}$|^\$([A-Za-z_][A-Za-z0-9_]*)$`)
	// notName is what the name of a secret cannot have.
	notName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
)

// Propose makes a proposal of a found server, under a name.
func (f *Found) Propose(name string) (*Proposal, error) {
	if err := mcp.ValidServer(name); err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	engine := detect.NewEngine(nil)
	p := &Proposal{Definition: mcp.Definition{Name: name, Command: f.Command, Args: f.Args, URL: f.URL, SSE: f.SSE}}
	if err := f.checkOpen(engine); err != nil {
		return nil, err
	}
	if f.Dir != "" {
		p.Lost = append(p.Lost, "its directory "+f.Dir+" (a program has one of its own)")
	}
	if f.Command != "" && !filepath.IsAbs(f.Command) && strings.ContainsRune(f.Command, '/') {
		return nil, fault.New(fault.Invalid, "its program %.200q is a path that begins nowhere", f.Command).WithHint("capsem mcp add %s COMMAND", name)
	}
	for _, key := range slices.Sorted(maps.Keys(f.Env)) {
		if p.Definition.Env == nil {
			p.Definition.Env = map[string]string{}
		}
		p.Definition.Env[key] = p.take(engine, key, f.Env[key])
	}
	headers := maps.Clone(f.Headers)
	if headers == nil && (f.Token != "" || f.TokenEnv != "") {
		headers = map[string]string{}
	}
	switch {
	case f.Token != "":
		headers["Authorization"] = "Bearer " + f.Token
	case f.TokenEnv != "":
		headers["Authorization"] = "Bearer ${" + f.TokenEnv + "}"
	}
	for _, key := range slices.Sorted(maps.Keys(headers)) {
		if p.Definition.Headers == nil {
			p.Definition.Headers = map[string]string{}
		}
		p.Definition.Headers[key] = p.take(engine, key, headers[key])
	}
	return p, nil
}

// checkOpen refuses secrets where everybody on the machine can read them.
func (f *Found) checkOpen(engine *detect.Engine) error {
	for i, text := range append(slices.Clone(f.Args), f.URL) {
		flag, _, _ := strings.Cut(text, "=")
		named := strings.HasPrefix(text, "-") && mcp.SecretName(flag)
		if i == len(f.Args) {
			_, query, _ := strings.Cut(text, "?")
			named = mcp.SecretName(query)
		}
		if named || looksSecret(engine, text) {
			return fault.New(fault.Invalid, "its arguments or its url seem to have a secret in them, which every process of this machine could read").
				WithHint("give it to the server in its environment or a header: capsem mcp add --env NAME=secret:REF")
		}
	}
	return nil
}

func looksSecret(engine *detect.Engine, text string) bool {
	return len(engine.Outgoing("").Push([]byte(text), true)) > 0
}

// take is what stands in the definition for a value: itself, or a reference.
func (p *Proposal) take(engine *detect.Engine, key, value string) string {
	reference := strings.Contains(value, "${") || variable.MatchString(value)
	if value == "" || !reference && !mcp.SecretName(key) && !looksSecret(engine, value) {
		return value
	}
	before := ""
	if scheme, rest, ok := strings.Cut(value, " "); ok && strings.EqualFold(key, "authorization") {
		before, value = scheme+" ", strings.TrimSpace(rest)
	}
	s := ProposedSecret{Of: key, Name: "mcp." + p.Definition.Name + "." + notName.ReplaceAllString(key, "-")}
	s.Name = s.Name[:min(len(s.Name), 64)]
	switch m := variable.FindStringSubmatch(value); {
	case m != nil:
		s.Variable = m[1] + m[2]
	case !strings.Contains(value, "${"):
		s.Value = value
	}
	p.Secrets = append(p.Secrets, s)
	return before + "secret:" + s.Name
}
