package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/pelletier/go-toml/v2"

	"capsem/core/fault"
	"capsem/core/mcp/jsonc"
)

const (
	// maxServers bounds the servers of one file, maxWords the arguments, variables and headers of one, maxText any text in bytes.
	maxServers = 200
	maxWords   = 256
	maxText    = 8 << 10
	// ownName is capsem's own entry.
	ownName = "capsem"
)

// Found is an MCP server in a client's settings. Env and Headers may hold secrets: nothing here logs them.
type Found struct {
	// Client has it in the file at Path, for one Project (a directory) or, when that is empty, all.
	Client  Client
	Path    string
	Project string
	// Name is what the client calls it.
	Name string
	// Command, Args, Env and Dir start one over stdio.
	Command string
	Args    []string
	Env     map[string]string
	Dir     string
	// URL, Headers and SSE reach one over HTTP; TokenEnv names the variable with its bearer token (Codex), Token is the token itself.
	URL      string
	Headers  map[string]string
	SSE      bool
	Token    string
	TokenEnv string
	// Disabled says that the client does not use it.
	Disabled bool
}

// Transport is stdio, http or sse.
func (f Found) Transport() string {
	switch {
	case f.Command != "":
		return "stdio"
	case f.SSE:
		return "sse"
	}
	return "http"
}

// Problem is a file, or a server in it, that cannot be understood.
type Problem struct {
	Client Client
	Path   string
	// Server is empty when it is the whole file.
	Server string
	Err    error
}

// String is the problem in one line. It quotes nothing of the file but the server's name.
func (p Problem) String() string {
	where := p.Path
	if p.Server != "" {
		where += ": " + fault.Plain(p.Server)
	}
	return fmt.Sprintf("%s: %s: %s", p.Client, where, fault.Plain(p.Err.Error()))
}

// Detect lists the MCP servers in the settings of the clients in a home directory, in a fixed order, capsem's own left out. A file
// that is wrong is a problem and hides no other.
func Detect(home string) ([]Found, []Problem) {
	var found []Found
	var problems []Problem
	for _, f := range files(home) {
		text, _, err := read(f.path)
		if err == nil && text != nil {
			var some []Found
			var wrong []Problem
			some, wrong, err = f.servers(text)
			found, problems = append(found, some...), append(problems, wrong...)
		}
		if err != nil {
			problems = append(problems, Problem{Client: f.client, Path: f.path, Err: err})
		}
	}
	return found, problems
}

// servers are those that a file's text has.
func (f file) servers(text []byte) ([]Found, []Problem, error) {
	if f.key == nil {
		return f.tomlServers(text)
	}
	plain, err := jsonc.Standard(text)
	if err != nil {
		return nil, nil, err
	}
	if len(bytes.TrimSpace(plain)) == 0 {
		return nil, nil, nil
	}
	tree := json.RawMessage(plain)
	root := tree
	for _, key := range f.key {
		if tree, err = childOf(tree, key); err != nil {
			return nil, nil, err
		}
	}
	found, problems, err := f.list(tree, "")
	if err != nil || !f.projects {
		return found, problems, err
	}
	all, err := childOf(root, "projects")
	if err != nil || all == nil {
		return found, problems, err
	}
	var projects map[string]json.RawMessage
	if err := json.Unmarshal(all, &projects); err != nil {
		return found, problems, errors.New("its projects are no object")
	}
	for _, name := range slices.Sorted(maps.Keys(projects)) {
		tree, err := childOf(projects[name], f.key[0])
		if err == nil {
			var more []Found
			var wrong []Problem
			more, wrong, err = f.list(tree, name)
			found, problems = append(found, more...), append(problems, wrong...)
		}
		if err != nil || len(found) > maxServers {
			return found[:min(len(found), maxServers)], problems, errors.Join(err, tooMany(len(found)))
		}
	}
	return found, problems, nil
}

func tooMany(n int) error {
	if n > maxServers {
		return fmt.Errorf("it has more than %d servers", maxServers)
	}
	return nil
}

// childOf is a member of an object, nil where there is none.
func childOf(tree json.RawMessage, key string) (json.RawMessage, error) {
	if tree == nil {
		return nil, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(tree, &all); err != nil {
		return nil, fmt.Errorf("what should have %s in it is no object", key)
	}
	return all[key], nil
}

// entry is one server as the clients write it.
type entry struct {
	Type        string            `json:"type" toml:"type"`
	Command     string            `json:"command" toml:"command"`
	Args        []string          `json:"args" toml:"args"`
	Env         map[string]string `json:"env" toml:"env"`
	Cwd         string            `json:"cwd" toml:"cwd"`
	URL         string            `json:"url" toml:"url"`
	HTTPURL     string            `json:"httpUrl" toml:"-"`
	Headers     map[string]string `json:"headers" toml:"http_headers"`
	Bearer      string            `json:"bearer_token" toml:"bearer_token"`
	BearerToken string            `json:"bearerToken" toml:"-"`
	TokenEnv    string            `json:"-" toml:"bearer_token_env_var"`
	Disabled    bool              `json:"disabled" toml:"-"`
	Enabled     *bool             `json:"enabled" toml:"enabled"`
}

// list reads an object of servers.
func (f file) list(tree json.RawMessage, project string) ([]Found, []Problem, error) {
	if tree == nil {
		return nil, nil, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(tree, &all); err != nil {
		return nil, nil, errors.New("its servers are no object")
	}
	if err := tooMany(len(all)); err != nil {
		return nil, nil, err
	}
	var found []Found
	var problems []Problem
	for _, name := range slices.Sorted(maps.Keys(all)) {
		var e entry
		err := json.Unmarshal(all[name], &e)
		if err != nil {
			err = errors.New("it is written in an unknown way") // the decoder's words may quote a secret
		}
		found, problems = f.add(found, problems, name, project, e, err)
	}
	return found, problems, nil
}

func (f file) tomlServers(text []byte) ([]Found, []Problem, error) {
	var all struct {
		Servers map[string]any `toml:"mcp_servers"`
	}
	if err := toml.Unmarshal(text, &all); err != nil {
		return nil, nil, errors.New("it is not the TOML that is expected")
	}
	if err := tooMany(len(all.Servers)); err != nil {
		return nil, nil, err
	}
	var found []Found
	var problems []Problem
	for _, name := range slices.Sorted(maps.Keys(all.Servers)) {
		var e entry
		one, err := toml.Marshal(all.Servers[name])
		if err != nil || toml.Unmarshal(one, &e) != nil {
			err = errors.New("it is written in an unknown way")
		}
		found, problems = f.add(found, problems, name, "", e, err)
	}
	return found, problems, nil
}

// add checks one entry and adds it to either list.
func (f file) add(found []Found, problems []Problem, name, project string, e entry, err error) ([]Found, []Problem) {
	if name == ownName {
		return found, problems
	}
	if err == nil {
		err = e.check(name)
	}
	if err != nil {
		return found, append(problems, Problem{Client: f.client, Path: f.path, Server: name[:min(len(name), 100)], Err: err})
	}
	one := Found{
		Client: f.client, Path: f.path, Project: project, Name: name, Command: e.Command, Args: e.Args, Env: e.Env, Dir: e.Cwd,
		URL: e.URL, Headers: e.Headers, Token: e.Bearer + e.BearerToken, TokenEnv: e.TokenEnv, SSE: e.Type == "sse",
		Disabled: e.Disabled || (e.Enabled != nil && !*e.Enabled),
	}
	if e.HTTPURL != "" {
		one.URL = e.HTTPURL
	} else if f.client == Gemini && e.Type == "" { // its url is the older transport
		one.SSE = one.URL != ""
	}
	return append(found, one), problems
}

// check refuses what is no server, and what is out of bounds.
func (e entry) check(name string) error {
	switch {
	case name == "" || len(name) > 128 || strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("its name is empty, too long, or has control characters in it")
	case (e.Command == "") == (e.URL == "" && e.HTTPURL == ""):
		return errors.New("it has neither a command nor a URL, or both")
	case len(e.Args) > maxWords || len(e.Env) > maxWords || len(e.Headers) > maxWords:
		return fmt.Errorf("it has more than %d arguments, variables or headers", maxWords)
	}
	texts := slices.Concat([]string{e.Command, e.Cwd, e.URL, e.HTTPURL, e.Bearer, e.BearerToken, e.TokenEnv, e.Type}, e.Args)
	for _, m := range []map[string]string{e.Env, e.Headers} {
		for key, value := range m {
			texts = append(texts, key, value)
		}
	}
	for _, text := range texts {
		if len(text) > maxText || strings.ContainsRune(text, 0) {
			return fmt.Errorf("a text of it is longer than %d bytes, or has a NUL in it", maxText)
		}
	}
	return nil
}
