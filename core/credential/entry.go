// Package credential keeps the owner's credentials: sealed on disk, and for each VM as placeholders that look like the real ones. Which
// placeholder stands for what only the host knows; the proxy (core/credential/swap) puts the real value in, for the hosts it is bound to.
package credential

import (
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"capsem/core/fault"
	"capsem/core/policy"
	"capsem/core/proto"
)

// Form is what a credential consists of.
type Form string

// The forms.
const (
	// Key is one text, such as an API key or a token.
	Key Form = "key"
	// Basic is a user's name, which is no secret, and a password.
	Basic Form = "basic"
	// OAuth is what the command line of a provider keeps of a sign-in: a short-lived token and one to get the next with.
	OAuth Form = "oauth"
)

// Place is a part of a request that a credential is put into.
type Place = proto.GrantPlace

// Entry is one credential as it is stored.
type Entry struct {
	// Name is the owner's for it.
	Name string `json:"name"`
	// Kind is one of Kinds.
	Kind string `json:"kind"`
	Form Form   `json:"form"`
	// Hosts are patterns of hosts (of the policy) it is bound to, Places the parts of requests it is put into.
	Hosts  []string `json:"hosts"`
	Places []Place  `json:"places"`
	// Env are the variables of the guest that have its placeholder.
	Env []string `json:"env,omitempty"`
	// User belongs to Basic.
	User string `json:"user,omitempty"`
	// Value is the secret itself: the key, the password, or the token of a sign-in.
	Value string `json:"value"`
	// Shape is what its placeholders look like. It stays when the value changes in the same way.
	Shape Shape `json:"shape"`
	// Token belongs to OAuth.
	Token *Token `json:"token,omitempty"`
	// Updated is when it was set.
	Updated time.Time `json:"updated"`
}

// Bounds of an entry.
const (
	maxEntries = proto.MaxGrants
	maxUser    = 256
)

var (
	nameOf = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	envOf  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
)

// CheckName checks the name of a credential.
func CheckName(name string) error {
	if !nameOf.MatchString(name) {
		return fault.New(fault.Invalid, "%.80q is no name of a secret", name).WithHint("use up to 64 letters, digits, dots, hyphens and underscores")
	}
	return nil
}

// Complete checks an entry and fills in what its kind says.
func (e *Entry) Complete() error {
	k, ok := kinds[e.Kind]
	if !ok {
		return fault.New(fault.Invalid, "there is no kind of secret %.40q", e.Kind).WithHint("there are: %s", strings.Join(Kinds(), ", "))
	}
	if err := CheckName(e.Name); err != nil {
		return err
	}
	if e.Form == "" {
		e.Form = Key
	}
	if len(e.Hosts) == 0 {
		e.Hosts = slices.Clone(k.hosts)
		if e.Form == OAuth {
			e.Hosts = slices.Clone(k.oauthHosts)
		}
	}
	if len(e.Places) == 0 {
		e.Places = slices.Clone(k.places)
		if e.Form == Basic {
			e.Places = []Place{{In: "basic"}}
		}
	}
	if len(e.Env) == 0 && e.Form == Key {
		e.Env = slices.Clone(k.env)
	}
	if err := e.checkWhere(); err != nil {
		return err
	}
	if err := e.checkValue(); err != nil {
		return err
	}
	e.Shape = shapeOf(k.prefixes, e.Value)
	return nil
}

// checkWhere checks hosts, places and variables.
func (e *Entry) checkWhere() error {
	if e.Kind == ForServers {
		if len(e.Hosts)+len(e.Places)+len(e.Env) > 0 || e.Form == Basic {
			return fault.New(fault.Invalid, "a secret of MCP servers has no hosts, places, variables or user").WithHint("the servers' definitions refer to it as secret:%s", e.Name)
		}
		return e.Token.check()
	}
	if len(e.Hosts) == 0 {
		return fault.New(fault.Invalid, "secret %s is bound to no host", e.Name).WithHint("say which it may go to, such as --host api.example.com")
	}
	if len(e.Hosts) > proto.MaxGrantHosts || len(e.Places) > proto.MaxGrantPlaces || len(e.Env) > 16 {
		return fault.New(fault.OutOfRange, "secret %s has too many hosts, places or variables", e.Name)
	}
	for i, h := range e.Hosts {
		p, err := policy.ParseHostPattern(h)
		if err == nil && (p == "**" || strings.Contains(string(p), "/")) {
			return fault.New(fault.Invalid, "a secret cannot be bound to %s", p).WithHint("name the hosts it is for")
		}
		if err != nil {
			return fault.Wrap(err, fault.Invalid, "%s", fault.Line(err))
		}
		e.Hosts[i] = string(p)
	}
	for i, p := range e.Places {
		if p.In != "header" && p.In != "basic" && p.In != "query" && p.In != "json" || len(p.Name) > 128 {
			return fault.New(fault.Invalid, "%.40q is no place of a request", p.In).WithHint("use header, basic, query or json, each but basic with :NAME if you like")
		}
		if p.In == "header" {
			e.Places[i].Name = strings.ToLower(p.Name)
		}
	}
	for _, name := range e.Env {
		if !envOf.MatchString(name) || proto.ValidateEnv(map[string]string{name: ""}) != nil {
			return fault.New(fault.Invalid, "%.80q is no variable that can be set in a VM", name)
		}
	}
	return nil
}

// checkValue checks what is secret, without ever quoting it.
func (e *Entry) checkValue() error {
	switch {
	case len(e.Value) < proto.MinSecret:
		return fault.New(fault.Invalid, "the value is shorter than %d bytes: a placeholder for it would be found by accident", proto.MinSecret)
	case len(e.Value) > proto.MaxSecret:
		return fault.New(fault.TooLarge, "the value is longer than %d bytes", proto.MaxSecret)
	case strings.ContainsFunc(e.Value, func(r rune) bool { return r < ' ' || r > '~' }):
		return fault.New(fault.Invalid, "the value has line ends, control characters or letters beyond ASCII: no request could carry it")
	case e.Form == Basic && (e.User == "" || len(e.User) > maxUser || strings.ContainsFunc(e.User, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' })):
		return fault.New(fault.Invalid, "a password needs the name of its user, without blanks and colons").WithHint("add --user NAME")
	case e.Form == OAuth && e.Token == nil:
		return fault.New(fault.Invalid, "a sign-in has no tokens")
	case e.Token != nil && (len(e.Token.Refresh) > proto.MaxSecret || len(e.Token.Identity) > 2*proto.MaxSecret):
		return fault.New(fault.TooLarge, "a token of the sign-in is longer than %d bytes", proto.MaxSecret)
	}
	return nil
}

// check checks what a sign-in to an MCP server says; nil is none.
func (t *Token) check() error {
	if t == nil {
		return nil
	}
	u, err := url.Parse(t.URL)
	ok := err == nil && u.Host != "" && u.User == nil
	if ok && u.Scheme != "https" { // plain HTTP on the loopback only
		ok = u.Scheme == "http" && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback())
	}
	if t.Client != ClientServer || t.Server == "" || t.Refresh != "" && !ok {
		return fault.New(fault.Invalid, "this is no sign-in to an MCP server")
	}
	for _, text := range []string{t.Refresh, t.URL, t.ClientID, t.ClientSecret, t.Server, t.Resource} {
		if len(text) > proto.MaxSecret {
			return fault.New(fault.TooLarge, "a part of the sign-in is longer than %d bytes", proto.MaxSecret)
		}
	}
	return nil
}
