package credential

import (
	"slices"
	"strings"

	"capsem/core/proto"
)

// fields are the texts of a credential that have placeholders.
const (
	fieldValue    = "value"
	fieldRefresh  = "refresh"
	fieldIdentity = "identity"
)

// refreshShape is what stands for a token that only the host uses; it has no length to keep.
func refreshShape(e *Entry) Shape { return shapeOf(kinds[e.Kind].prefixes, e.Token.Refresh) }

// placeholders are what a VM has of a credential.
type placeholders struct{ value, refresh, identity string }

func (e *Entry) placeholders(family string) placeholders {
	p := placeholders{value: placeholder(family, e.Name, fieldValue, e.Shape)}
	if e.Token != nil {
		if len(e.Token.Refresh) >= proto.MinSecret && len(e.Token.Refresh) <= proto.MaxSecret {
			p.refresh = placeholder(family, e.Name, fieldRefresh, refreshShape(e))
		}
		if claims := placeholderClaims(e.Token.Identity); claims != "" && len(claims) < proto.MaxSecret-64 {
			p.identity = placeholder(family, e.Name, fieldIdentity, Shape{Prefix: claims, Alphabet: digits + lower + upper, Rest: "********************************"})
		}
	}
	return p
}

// For gives what a worker and its guest get of the credentials, for a VM of a family: it is a pure function. chosen are the names of those that
// the VM is given, nil for all; of the others it has nothing, but what leaves it is searched for them.
func For(entries []Entry, family string, chosen []string) proto.Credentials {
	out := proto.Credentials{}
	var given []Entry
	for _, e := range entries {
		switch {
		case e.Kind == ForServers:
		case chosen == nil || slices.Contains(chosen, e.Name):
			given = append(given, e)
		default:
			if out.Watched == nil {
				out.Watched = map[string]proto.Secret{}
			}
			out.Watched[e.Name] = proto.Secret(strings.TrimPrefix(e.Value, e.Shape.Prefix))
		}
	}
	for i := range given {
		e := &given[i]
		p := e.placeholders(family)
		out.Grants = append(out.Grants, proto.Grant{
			Name: e.Name, Kind: e.Kind, Hosts: slices.Clone(e.Hosts), Places: slices.Clone(e.Places),
			Secrets: []proto.GrantSecret{{Placeholder: p.value, Value: proto.Secret(e.Value)}},
		})
		// Tokens that only the host uses go nowhere; one that is seen is refused.
		for _, never := range []string{p.refresh, p.identity} {
			if never != "" {
				out.Grants[i].Secrets = append(out.Grants[i].Secrets, proto.GrantSecret{Placeholder: never})
			}
		}
	}
	out.Env, out.Files = Prepare(given, family)
	return out
}
