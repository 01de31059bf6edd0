// Package swap is what stands between a guest that has placeholders and the hosts that want credentials: modifiers of the proxy that put
// the real value in where it belongs, refuse a placeholder that is on its way anywhere else, and take the value out of answers.
package swap

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"capsem/core/detect/match"
	"capsem/core/policy"
	"capsem/core/proto"
)

// Vault has the credentials of one VM, in the memory of its worker. It may be used by many goroutines.
type Vault struct{ now atomic.Pointer[table] }

// NewVault makes one without any.
func NewVault() *Vault {
	v := &Vault{}
	v.now.Store(&table{placeholders: &match.Secrets{}, values: &match.Secrets{}})
	return v
}

// Set replaces all credentials. Requests that are under way keep those they began with.
func (v *Vault) Set(c *proto.Credentials) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("take credentials: %w", err)
	}
	t, err := newTable(c.Grants)
	if err != nil {
		return err
	}
	v.now.Store(t)
	return nil
}

// Placeholder reports whether a text has one of the placeholders in it.
func (v *Vault) Placeholder(text []byte) bool {
	t := v.now.Load()
	if len(t.texts) == 0 {
		return false
	}
	found := false
	stream := match.NewStream(t.placeholders, func(*match.Hit) ([]byte, error) { found = true; return nil, nil })
	defer stream.Free()
	_, _ = stream.Push(text, true) // it only fails when the callback does
	return found
}

// table is the credentials at one time.
type table struct {
	grants []grant
	// texts are what placeholders stand for, by their numbers in the sets. values has only those that have a value, by their own numbers:
	// valued says which text each is.
	texts                []text
	placeholders, values *match.Secrets
	valued               []int
	// folded are the placeholders in lower case, for names of hosts.
	folded []string
}

type grant struct {
	name, kind string
	hosts      []policy.HostPattern
	places     []proto.GrantPlace
}

type text struct {
	grant              *grant
	placeholder, value string
}

func newTable(grants []proto.Grant) (*table, error) {
	t := &table{grants: make([]grant, len(grants))}
	var placeholders, values [][]byte
	for i := range grants {
		g := &t.grants[i]
		g.name, g.kind, g.places = grants[i].Name, grants[i].Kind, grants[i].Places
		for _, h := range grants[i].Hosts {
			p, err := policy.ParseHostPattern(h)
			if err != nil {
				return nil, fmt.Errorf("take credentials: %w", err)
			}
			g.hosts = append(g.hosts, p)
		}
		for _, s := range grants[i].Secrets {
			if s.Value != "" {
				values, t.valued = append(values, []byte(s.Value)), append(t.valued, len(t.texts))
			}
			placeholders = append(placeholders, []byte(s.Placeholder))
			t.texts = append(t.texts, text{g, s.Placeholder, string(s.Value)})
			t.folded = append(t.folded, strings.ToLower(s.Placeholder))
		}
	}
	var err error
	if t.placeholders, err = match.NewSecrets(placeholders); err != nil {
		return nil, fmt.Errorf("take credentials: %w", err)
	}
	if t.values, err = match.NewSecrets(values); err != nil {
		return nil, fmt.Errorf("take credentials: %w", err)
	}
	return t, nil
}

// boundTo says whether a credential may go to a host.
func (g *grant) boundTo(host string) bool {
	return slices.ContainsFunc(g.hosts, func(p policy.HostPattern) bool { return p.Match(host) })
}

// goesInto says whether a credential is put into a part of a request.
func (g *grant) goesInto(in, name string) bool {
	return slices.ContainsFunc(g.places, func(p proto.GrantPlace) bool {
		return p.In == in && (p.Name == "" || p.Name == name || in == "header" && strings.EqualFold(p.Name, name))
	})
}
