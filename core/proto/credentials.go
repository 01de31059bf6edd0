package proto

import (
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
)

// Secret is a text that is never printed: whatever formats it gets a word instead. CBOR carries it, JSON does not.
type Secret string

// hidden stands for a secret wherever one is printed.
const hidden = "[secret]"

// String hides it from fmt.
func (s Secret) String() string { return hidden }

// GoString hides it from %#v.
func (s Secret) GoString() string { return hidden }

// LogValue hides it from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides it from JSON and other texts.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Limits of what a worker is given of the credentials.
const (
	// MaxGrants is how many credentials a VM has, MaxGrantFiles how many files are made of them.
	MaxGrants, MaxGrantFiles = 64, 32
	// MaxGrantHosts and MaxGrantPlaces bound where one goes; MaxGrantSecrets how many texts it consists of.
	MaxGrantHosts, MaxGrantPlaces, MaxGrantSecrets = 32, 16, 4
	// MinSecret and MaxSecret bound one such text, MaxGrantFile one file, in bytes.
	MinSecret, MaxSecret, MaxGrantFile = 8, 4 << 10, 64 << 10
)

// Credentials is what a worker is given of the owner's credentials, when it starts and when they change: real values for its proxy, and
// what its guest gets, in which placeholders stand for them. It goes over the worker's socket, in parts if it must, and is never written down.
type Credentials struct {
	Grants []Grant `cbor:"grants,omitempty"`
	// Env and Files are for the guest.
	Env   map[string]string `cbor:"env,omitempty"`
	Files []GrantFile       `cbor:"files,omitempty"`
	// Servers are values, by name, that the owner's MCP servers on the host get. The guest has nothing of them.
	Servers map[string]Secret `cbor:"servers,omitempty"`
	// Watched are values, by name, of credentials that this VM was not given: they are only looked for in what it sends.
	Watched map[string]Secret `cbor:"watched,omitempty"`
	// Unrenewed are marks, by name, of tokens among those that a worker asked to be renewed, and for which there is no next one.
	Unrenewed map[string]string `cbor:"unrenewed,omitempty"`
	// More says that further parts follow, see Parts.
	More bool `cbor:"more,omitempty"`
}

// Grant is one credential, and where it may go.
type Grant struct {
	// Name is the owner's, Kind that of the credential.
	Name string `cbor:"name"`
	Kind string `cbor:"kind"`
	// Hosts are patterns of the policy; none is nowhere.
	Hosts []string `cbor:"hosts,omitempty"`
	// Places are the parts of a request that it is put into.
	Places []GrantPlace `cbor:"places,omitempty"`
	// Secrets are its texts.
	Secrets []GrantSecret `cbor:"secrets"`
}

// GrantPlace is a part of a request: a header, the user or password of basic authentication, a parameter of the query, or a text of a JSON body.
type GrantPlace struct {
	// In is header, basic, query or json; Name that of the header, parameter or field, empty for any.
	In   string `cbor:"in" json:"in"`
	Name string `cbor:"name,omitempty" json:"name,omitempty"`
}

// GrantSecret is one text of a credential.
type GrantSecret struct {
	// Placeholder is what the guest has, Value what it stands for: empty for one that is never put in.
	Placeholder string `cbor:"placeholder"`
	Value       Secret `cbor:"value,omitempty"`
}

// GrantFile is a file for the guest, beneath /root.
type GrantFile struct {
	Path string `cbor:"path"`
	Text string `cbor:"text"`
	// Keep says that one that is there already is left alone, whoever wrote it. Merge says so of what is in one that is there: it is a JSON
	// object, and gets the fields that it does not have.
	Keep  bool `cbor:"keep,omitempty"`
	Merge bool `cbor:"merge,omitempty"`
}

// Validate checks it; the worker does, though the service is trusted.
func (c *Credentials) Validate() error {
	if len(c.Grants) > MaxGrants || len(c.Files) > MaxGrantFiles || max(len(c.Servers), len(c.Watched), len(c.Unrenewed)) > MaxGrants {
		return errors.New("too many credentials")
	}
	for i := range c.Grants {
		if err := c.Grants[i].validate(); err != nil {
			return fmt.Errorf("credential %.40q: %w", c.Grants[i].Name, err)
		}
	}
	for _, values := range []map[string]Secret{c.Servers, c.Watched} {
		for name, value := range values {
			if name == "" || len(name) > 64 || !isText(name) || len(value) < MinSecret || len(value) > MaxSecret {
				return fmt.Errorf("the secret %.40q is not as it can be", name)
			}
		}
	}
	for name, mark := range c.Unrenewed {
		if len(name) > 64 || !isText(name) || len(mark) > 64 || !isText(mark) {
			return fmt.Errorf("the token %.40q that was not renewed is not as it can be", name)
		}
	}
	for _, f := range c.Files {
		clean := path.Clean(f.Path)
		if f.Path == "" || clean != f.Path || path.IsAbs(f.Path) || clean == ".." || strings.HasPrefix(clean, "../") || len(f.Path) > MaxPath || !isText(f.Path) {
			return fmt.Errorf("file %.80q of a credential is not in the guest's home", f.Path)
		}
		if len(f.Text) > MaxGrantFile {
			return fmt.Errorf("file %.80q of a credential is over %d bytes", f.Path, MaxGrantFile)
		}
	}
	return ValidateEnv(c.Env)
}

func (g *Grant) validate() error {
	if g.Name == "" || len(g.Name) > 64 || !isText(g.Name) || len(g.Kind) > 64 {
		return errors.New("it has no proper name")
	}
	if len(g.Hosts) > MaxGrantHosts || len(g.Places) > MaxGrantPlaces || len(g.Secrets) > MaxGrantSecrets {
		return errors.New("it has too many hosts, places or texts")
	}
	for _, s := range g.Secrets {
		if len(s.Placeholder) < MinSecret || len(s.Placeholder) > MaxSecret || len(s.Value) > MaxSecret || (s.Value != "" && len(s.Value) < MinSecret) {
			return fmt.Errorf("a text of it is not %d to %d bytes long", MinSecret, MaxSecret)
		}
	}
	for _, p := range g.Places {
		switch p.In {
		case "header", "basic", "query", "json":
		default:
			return fmt.Errorf("%.20q is no part of a request", p.In)
		}
	}
	return nil
}
