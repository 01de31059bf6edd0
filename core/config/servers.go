package config

import (
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/mcp"
	"capsem/core/paths"
)

// maxServers bounds the MCP servers of one file.
const maxServers = 100

// server is the shape of a table [mcp.servers.NAME].
type server struct {
	Command     string            `toml:"command"`
	Args        []string          `toml:"args"`
	Env         map[string]string `toml:"env"`
	Read        []string          `toml:"read"`
	Write       []string          `toml:"write"`
	Network     bool              `toml:"network"`
	URL         string            `toml:"url"`
	SSE         bool              `toml:"sse"`
	Headers     map[string]string `toml:"headers"`
	Private     bool              `toml:"private"`
	Enabled     *bool             `toml:"enabled"`
	Timeout     string            `toml:"timeout"`
	MaxResult   int               `toml:"max_result"`
	Concurrency int               `toml:"concurrency"`
	Sampling    bool              `toml:"sampling"`
	Elicitation bool              `toml:"elicitation"`
}

// servers takes over the MCP servers of one file. One of a later file replaces that of an earlier.
func (c *checker) servers(to *map[string]mcp.Definition, from map[string]server) {
	if c.seen != nil && from != nil {
		c.seen("mcp.servers", "tables [mcp.servers.NAME]", "{}")
	}
	if len(from) > maxServers {
		c.complain("mcp.servers", "are more than %d", maxServers)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(from)) {
		s := from[name]
		if *to == nil {
			*to = map[string]mcp.Definition{}
		}
		d, err := s.definition(name)
		if err == nil {
			if other := mcp.LookAlike(name, slices.Collect(maps.Keys(*to))); other != "" {
				err = fmt.Errorf("its name looks like that of %s", other)
			}
		}
		if err != nil {
			c.complain("mcp.servers."+name, "cannot be: %s", fault.Line(err))
			return
		}
		if s.Enabled != nil && !*s.Enabled {
			delete(*to, name)
			continue
		}
		(*to)[name] = *d
	}
}

// definition checks one table.
func (s *server) definition(name string) (*mcp.Definition, error) {
	if err := mcp.ValidServer(name); err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	if (s.Command == "") == (s.URL == "") {
		return nil, fault.New(fault.Invalid, "it needs either a command or a url")
	}
	if s.URL != "" {
		u, err := url.Parse(s.URL)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fault.New(fault.Invalid, "its url is no http or https URL, or has a user name in it")
		}
	}
	d := &mcp.Definition{
		Name: name, Command: s.Command, Args: s.Args, Env: s.Env, Read: s.Read, Write: s.Write, Network: s.Network, URL: s.URL, SSE: s.SSE, Headers: s.Headers,
		Private: s.Private, Sampling: s.Sampling, Elicitation: s.Elicitation,
	}
	if slices.ContainsFunc(s.Args, func(a string) bool { return strings.Contains(a, "secret:") }) {
		return nil, fault.New(fault.Invalid, "secrets are for env and headers: arguments can be read by every process of this machine")
	}
	for _, values := range []map[string]string{s.Env, s.Headers} {
		for key, value := range values {
			if _, _, reference := mcp.SecretRef(value); mcp.SecretName(key) && !reference {
				return nil, fault.New(fault.Invalid, "%.60q is a secret: write \"secret:NAME\" and keep the value in the store of secrets", key)
			}
		}
	}
	if s.Timeout != "" {
		t, err := time.ParseDuration(s.Timeout)
		if err != nil || t < time.Second || t > time.Hour {
			return nil, fault.New(fault.Invalid, "timeout is %.40q; it must be a time from 1s to 1h", s.Timeout)
		}
		d.Limits.Timeout = t
	}
	if s.MaxResult < 0 || s.MaxResult > 8<<20 || s.Concurrency < 0 || s.Concurrency > 200 {
		return nil, fault.New(fault.Invalid, "max_result is at most 8388608, concurrency at most 200")
	}
	d.Limits.MaxResult, d.Limits.Concurrency = s.MaxResult, s.Concurrency
	return d, nil
}

// MCPServers are the servers of the settings, in the order of their names.
func (s *Settings) MCPServers() []mcp.Definition {
	out := make([]mcp.Definition, 0, len(s.MCP))
	for _, name := range slices.Sorted(maps.Keys(s.MCP)) {
		out = append(out, s.MCP[name])
	}
	return out
}

// ServerSource follows the MCP servers of an installation.
type ServerSource struct {
	home   paths.Home
	stamps string
	defs   []mcp.Definition
}

// NewServerSource begins with nothing read.
func NewServerSource(home paths.Home) *ServerSource { return &ServerSource{home: home} }

// Current are the servers as the files have them, and whether that may be another list than the last time. Files that cannot be read
// change nothing.
func (s *ServerSource) Current(log *slog.Logger) ([]mcp.Definition, bool) {
	var b strings.Builder
	for _, name := range []string{s.home.UserConfig(), paths.CorpConfig()} {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprintf(&b, " %d %d %v", info.ModTime().UnixNano(), info.Size(), inodeOf(info))
		}
	}
	stamps := "read" + b.String()
	if stamps == s.stamps {
		return s.defs, false
	}
	first := s.stamps == ""
	s.stamps = stamps
	set, err := Load(s.home)
	if err != nil {
		log.Warn("the settings cannot be read; the MCP servers stay as they are", "error", fault.Line(err))
		return s.defs, first
	}
	s.defs = set.MCPServers()
	return s.defs, true
}

// AddServer adds a server to the user's settings.
func AddServer(home paths.Home, d *mcp.Definition) error {
	text, err := read(home.UserConfig())
	if err != nil {
		return err
	}
	f, err := parse(home.UserConfig(), text)
	if err != nil {
		return err
	}
	if _, there := f.MCP.Servers[d.Name]; there {
		return fault.New(fault.Conflict, "there is an MCP server %s already", d.Name).WithHint("capsem mcp remove %s", d.Name)
	}
	return writeServers(home, append(ending(text), serverText(d)...))
}

// RemoveServer removes one from the user's settings.
func RemoveServer(home paths.Home, name string) error {
	text, err := read(home.UserConfig())
	if err != nil {
		return err
	}
	f, err := parse(home.UserConfig(), text)
	if err != nil {
		return err
	}
	if _, there := f.MCP.Servers[name]; !there {
		return fault.New(fault.NotFound, "there is no MCP server %.60q in %s", name, home.UserConfig())
	}
	head := regexp.MustCompile(`^\s*\[\s*mcp\s*\.\s*servers\s*\.\s*"?` + regexp.QuoteMeta(name) + `"?\s*[.\]]`)
	var out strings.Builder
	inside := false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(strings.TrimSpace(line), "[") {
			inside = head.MatchString(line)
		}
		if !inside {
			out.WriteString(line)
		}
	}
	if f, err = parse(home.UserConfig(), []byte(out.String())); err == nil {
		if _, there := f.MCP.Servers[name]; there {
			err = fault.New(fault.Conflict, "%s is not in a table of its own", name)
		}
	}
	if err != nil {
		return fault.Wrap(err, fault.Conflict, "the server cannot be taken out of %s: %s", home.UserConfig(), fault.Line(err)).WithHint("edit the file")
	}
	return writeServers(home, []byte(out.String()))
}

func ending(text []byte) []byte {
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return text
}

// writeServers writes the user's settings, if they are such.
func writeServers(home paths.Home, text []byte) error {
	s, err := Defaults()
	if err == nil {
		err = s.apply(home.UserConfig(), text)
	}
	if err != nil {
		return err
	}
	return atomicfile.Write(home.UserConfig(), text, 0o600) //nolint:wrapcheck // says what it did
}

// serverText is a definition as it stands in a settings file.
func serverText(d *mcp.Definition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n[mcp.servers.%s]\n", d.Name)
	one := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s = %s\n", key, quote(value))
		}
	}
	list := func(key string, values []string) {
		if len(values) > 0 {
			quoted := make([]string, len(values))
			for i, v := range values {
				quoted[i] = quote(v)
			}
			fmt.Fprintf(&b, "%s = [%s]\n", key, strings.Join(quoted, ", "))
		}
	}
	table := func(key string, values map[string]string) {
		if len(values) > 0 {
			var pairs []string
			for _, k := range slices.Sorted(maps.Keys(values)) {
				pairs = append(pairs, quote(k)+" = "+quote(values[k]))
			}
			fmt.Fprintf(&b, "%s = { %s }\n", key, strings.Join(pairs, ", "))
		}
	}
	flag := func(key string, value bool) {
		if value {
			fmt.Fprintf(&b, "%s = true\n", key)
		}
	}
	one("command", d.Command)
	list("args", d.Args)
	table("env", d.Env)
	list("read", d.Read)
	list("write", d.Write)
	flag("network", d.Network)
	one("url", d.URL)
	flag("sse", d.SSE)
	table("headers", d.Headers)
	flag("private", d.Private)
	flag("sampling", d.Sampling)
	flag("elicitation", d.Elicitation)
	return b.String()
}

// quote is a text as TOML has it.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
