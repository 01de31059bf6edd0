package mcp

import (
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/blake3"
)

// Limits bound the calls of one server.
type Limits struct {
	// Timeout bounds one call, MaxResult its answer in bytes, Concurrency how many run at once.
	Timeout     time.Duration `cbor:"timeout" json:"timeout"`
	MaxResult   int           `cbor:"max_result" json:"max_result"`
	Concurrency int           `cbor:"concurrency" json:"concurrency"`
}

// DefaultLimits are those of a server for which the owner has set none.
func DefaultLimits() Limits {
	return Limits{Timeout: time.Minute, MaxResult: 4 << 20, Concurrency: 32}
}

// Or fills in what is not set.
func (l Limits) Or(d Limits) Limits {
	if l.Timeout <= 0 {
		l.Timeout = d.Timeout
	}
	if l.MaxResult <= 0 {
		l.MaxResult = d.MaxResult
	}
	if l.Concurrency <= 0 {
		l.Concurrency = d.Concurrency
	}
	return l
}

// Definition is a server as the owner has defined it.
type Definition struct {
	Name string `json:"name"`
	// Command and Args are a program that speaks MCP on its standard input and output.
	Command string   `json:"command,omitempty"`
	Args    []string `json:"args,omitempty"`
	// Env is its environment. A value "secret:NAME" stands for a secret of the store.
	Env map[string]string `json:"env,omitempty"`
	// Read and Write are paths of the host that it may use besides the system's and its own directory; Network lets it open
	// connections.
	Read    []string `json:"read,omitempty"`
	Write   []string `json:"write,omitempty"`
	Network bool     `json:"network,omitempty"`
	// URL is a server that is reached over HTTP, SSE its older transport, Headers what is sent with each request, with secrets as in Env.
	URL     string            `json:"url,omitempty"`
	SSE     bool              `json:"sse,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	// Private lets the name in the URL have a private address.
	Private bool `json:"private,omitempty"`
	// Limits bound its calls; zeros are defaults.
	Limits Limits `json:"limits,omitzero"`
	// Sampling lets it have the VM's agent ask its model, Elicitation have it ask its user.
	Sampling    bool `json:"sampling,omitempty"`
	Elicitation bool `json:"elicitation,omitempty"`
}

// secretPrefix begins a value that stands for a secret, loginPrefix the name of what a sign-in to a server has got.
const secretPrefix, loginPrefix = "secret:", "mcp-login."

// SecretRef takes a value apart that stands for a secret: "secret:NAME", or with a word before it, such as "Bearer secret:NAME".
func SecretRef(value string) (before, name string, ok bool) {
	before, name, ok = strings.Cut(value, secretPrefix)
	return before, name, ok && (before == "" || strings.HasSuffix(before, " "))
}

// LoginSecret is the name of the secret that a sign-in to a server has got.
func LoginSecret(server string) string { return loginPrefix + server }

// IsLogin reports whether a secret is that of a sign-in, which goes to its own server only, and to which nothing refers.
func IsLogin(secret string) bool { return strings.HasPrefix(secret, loginPrefix) }

// Mark tells tokens of sign-ins apart without telling what they are.
func Mark(token string) string {
	h := blake3.NewDeriveKey("capsem 2026-11 mark of a token")
	_, _ = h.WriteString(token) // never fails
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// SecretRefs are the names of the secrets that a definition refers to.
func (d *Definition) SecretRefs() []string {
	names := map[string]bool{}
	for _, values := range []map[string]string{d.Env, d.Headers} {
		for _, v := range values {
			if _, name, ok := SecretRef(v); ok && !IsLogin(name) {
				names[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// secretName are names of values that must be references, so that no settings file holds them.
var secretName = regexp.MustCompile(`(?i)(authorization|cookie|token|secret|passw|api[-_]?key|credential|private[-_]?key)`)

// SecretName reports whether a variable or header is called as secrets are.
func SecretName(name string) bool { return secretName.MatchString(name) }
