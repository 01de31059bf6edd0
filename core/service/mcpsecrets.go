package service

import (
	"context"
	"fmt"
	"strings"
	"time"

	"capsem/core/api"
	"capsem/core/config"
	"capsem/core/credential"
	"capsem/core/fault"
	"capsem/core/mcp"
	"capsem/core/proto"
)

const (
	// serversLook is how often is looked whether the owner has edited which MCP servers there are.
	serversLook = 2 * time.Second
	// maxServerSecrets bounds what a worker is told of the secrets of MCP servers, in bytes: it goes over in one frame with the others.
	maxServerSecrets = 64 << 10
)

// serverSecrets are the secrets that the definitions of MCP servers refer to, and the tokens of sign-ins to those. No others go to workers
// in this way.
func (s *Service) serverSecrets(all []credential.Entry) map[string]proto.Secret {
	set, err := config.Load(s.opts.Home)
	if err != nil {
		s.log.Warn("the settings cannot be read; MCP servers go without secrets", "error", fault.Line(err))
		return nil
	}
	byName := map[string]*credential.Entry{}
	for i := range all {
		byName[all[i].Name] = &all[i]
	}
	out, left := map[string]proto.Secret{}, maxServerSecrets
	add := func(e *credential.Entry) {
		if _, there := out[e.Name]; there {
			return
		}
		if left -= len(e.Name) + len(e.Value); left < 0 || len(out) >= proto.MaxGrants {
			s.log.Warn("the secrets of MCP servers are too many or too long; one is left out", "secret", e.Name)
			return
		}
		out[e.Name] = proto.Secret(e.Value)
	}
	for _, d := range set.MCPServers() {
		for _, name := range d.SecretRefs() {
			if e := byName[name]; e != nil {
				add(e)
			}
		}
		// What a sign-in has got goes to the URL it was for, even if the owner has written another since.
		if e := byName[mcp.LoginSecret(d.Name)]; e != nil && e.Token != nil && d.URL != "" && e.Token.Server == d.URL {
			add(e)
		}
	}
	return out
}

// followServers tells workers of secrets that definitions of MCP servers newly refer to, until the service ends.
func (s *Service) followServers() {
	tick := time.NewTicker(serversLook)
	defer tick.Stop()
	source := config.NewServerSource(s.opts.Home)
	told := ""
	for {
		if defs, changed := source.Current(s.log); changed {
			now := wantsOf(defs)
			if now != told { // at first too: workers that were taken over may have been told by a service that knew other settings
				s.tellAll(s.ctx)
			}
			told = now
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// wantsOf tells lists of servers apart that want other secrets.
func wantsOf(defs []mcp.Definition) string {
	var b strings.Builder
	for i := range defs {
		fmt.Fprintf(&b, "%q %q %q\n", defs[i].Name, defs[i].URL, defs[i].SecretRefs())
	}
	return b.String()
}

// MCPLogin stores what a sign-in to a server has got, and gives it to the VMs that run.
func (s *Service) MCPLogin(ctx context.Context, name string, req *api.MCPLoginRequest) error {
	set, err := config.Load(s.opts.Home)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	d, there := set.MCP[name]
	switch {
	case !there:
		return fault.New(fault.NotFound, "there is no MCP server %.60q", name).WithHint("capsem mcp servers")
	case d.URL == "" || d.URL != req.URL:
		return fault.New(fault.Conflict, "the sign-in is not for the url of MCP server %s", name).WithHint("sign in again")
	}
	t := &credential.Token{
		Client: credential.ClientServer, Refresh: req.Refresh, URL: req.TokenURL, ClientID: req.ClientID, ClientSecret: req.ClientSecret,
		Basic: req.Basic, Resource: req.Resource, Server: req.URL,
	}
	if req.Expires != "" {
		if t.Expires, err = time.Parse(time.RFC3339, req.Expires); err != nil {
			return fault.New(fault.Invalid, "expires is no time (RFC 3339)")
		}
	}
	e := credential.Entry{Name: mcp.LoginSecret(name), Kind: credential.ForServers, Form: credential.OAuth, Value: req.Access, Token: t}
	if err := s.secrets.Set(e); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	s.log.Info("signed in to an MCP server", "server", name)
	s.tellAll(ctx)
	return nil
}
