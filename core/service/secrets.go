package service

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"capsem/core/api"
	"capsem/core/credential"
	"capsem/core/fault"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

const (
	// renewLook is how often sign-ins are looked at for tokens that end soon.
	renewLook = time.Minute
	// tellTime bounds telling one worker of changed credentials.
	tellTime = 15 * time.Second
)

// Secrets lists the stored secrets, without what is secret of them.
func (s *Service) Secrets() (api.SecretsReply, error) {
	all, err := s.secrets.All()
	if err != nil {
		return api.SecretsReply{}, err //nolint:wrapcheck // a fault
	}
	reply := api.SecretsReply{Secrets: []api.Secret{}, Presets: append([]string{}, credential.AcceptedPresets(all)...)}
	for i := range all {
		reply.Secrets = append(reply.Secrets, describeSecret(&all[i]))
	}
	return reply, nil
}

func describeSecret(e *credential.Entry) api.Secret {
	out := api.Secret{
		Name: e.Name, Kind: e.Kind, Form: string(e.Form), Hosts: e.Hosts, Env: e.Env, User: e.User,
		Updated: e.Updated.Format(time.RFC3339), Places: []string{},
	}
	for _, p := range e.Places {
		out.Places = append(out.Places, strings.TrimSuffix(p.In+":"+p.Name, ":"))
	}
	if e.Token != nil {
		if !e.Token.Expires.IsZero() {
			out.Expires = e.Token.Expires.Format(time.RFC3339)
		}
		if why := e.Renewable(); why != "" {
			out.Note = "it is not renewed: " + why
		}
	}
	return out
}

// SetSecret stores a secret, and gives it to the VMs that run.
func (s *Service) SetSecret(ctx context.Context, name string, req api.SecretRequest) (api.Secret, error) {
	e := credential.Entry{Name: name, Kind: req.Kind, User: req.User, Hosts: req.Hosts, Env: req.Env}
	for _, text := range req.Places {
		in, field, _ := strings.Cut(text, ":")
		e.Places = append(e.Places, credential.Place{In: in, Name: field})
	}
	e, err := credential.NewEntry(e, req.Value, req.SignIn)
	if err != nil {
		return api.Secret{}, err //nolint:wrapcheck // a fault
	}
	if err := s.secrets.Set(e); err != nil {
		return api.Secret{}, err //nolint:wrapcheck // a fault
	}
	s.log.Info("secret stored", "secret", name, "kind", e.Kind)
	s.tellAll(ctx)
	e, err = s.secrets.Get(name)
	return describeSecret(&e), err //nolint:wrapcheck // a fault
}

// RemoveSecret removes one, from the VMs that run too.
func (s *Service) RemoveSecret(ctx context.Context, name string) error {
	if err := s.secrets.Remove(name); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	s.log.Info("secret removed", "secret", name)
	s.tellAll(ctx)
	return nil
}

// TestSecret asks its provider whether a secret is good.
func (s *Service) TestSecret(ctx context.Context, name string) (api.SecretTest, error) {
	e, err := s.secrets.Get(name)
	if err != nil {
		return api.SecretTest{}, err //nolint:wrapcheck // a fault
	}
	t, err := e.Test(ctx, s.providers())
	return api.SecretTest{Good: t.Good, Status: t.Status, Detail: t.Detail}, err //nolint:wrapcheck // a fault
}

// checkChoice checks which secrets a VM is to have: each must be there, and be for VMs. nil is all.
func (s *Service) checkChoice(names []string) error {
	if len(names) == 0 {
		return nil
	}
	if len(names) > proto.MaxGrants {
		return fault.New(fault.OutOfRange, "%d secrets are more than the %d that a VM can have", len(names), proto.MaxGrants)
	}
	for _, name := range names {
		e, err := s.secrets.Get(name)
		if err != nil {
			return err //nolint:wrapcheck // a fault
		}
		if e.Kind == credential.ForServers {
			return fault.New(fault.Invalid, "secret %s is for MCP servers on this machine, and no VM has it", name).WithHint("leave it out")
		}
	}
	return nil
}

func (s *Service) providers() *http.Client {
	transport := s.opts.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	return credential.Client(transport)
}

// credentialsOf are those of a VM. Secrets that cannot be read are no reason not to start one: it then has none.
func (s *Service) credentialsOf(w view) *proto.Credentials {
	all, err := s.secrets.All()
	if err != nil {
		s.log.Warn("the secrets cannot be read; a VM goes without", "vm", w.spec.ID, "error", err)
		return &proto.Credentials{}
	}
	c := credential.For(all, w.spec.Family, w.spec.Secrets)
	c.Servers = s.serverSecrets(all)
	c.Unrenewed = s.refused.without(c.Servers)
	return &c
}

// introduce tells a worker that has just started of the credentials.
func (s *Service) introduce(ctx context.Context, conn *workerclient.Conn, w view) error {
	if w.spec.Family == "" {
		return nil
	}
	parts, err := s.credentialsOf(w).Parts()
	for i := 0; i < len(parts) && err == nil; i++ {
		_, err = conn.Call(ctx, proto.WorkerRequest{Op: proto.OpCredentials, Credentials: parts[i]})
	}
	if fault.Is(err, fault.Invalid) {
		s.log.Warn("a worker does not take the credentials", "vm", w.spec.ID, "error", err)
		return nil
	}
	return err //nolint:wrapcheck // a fault
}

// tellAll tells all workers of changed credentials.
func (s *Service) tellAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, v := range s.all() {
		w := v.view()
		if w.life == nil || w.spec.Family == "" {
			continue
		}
		wg.Go(func() {
			conn, err := workerclient.Dial(ctx, s.opts.Home.InstanceSocket(w.life.instance))
			if err == nil {
				defer conn.Close()
				err = s.introduce(ctx, conn, w)
			}
			if err != nil {
				s.log.Warn("a VM has not been told of changed secrets", "vm", w.spec.ID, "error", fault.Line(err))
			}
		})
	}
	wg.Wait()
}

// renewSecrets replaces tokens of sign-ins before they end, until the service does.
func (s *Service) renewSecrets() {
	tick := time.NewTicker(renewLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		renewed, failed := s.secrets.Renew(s.ctx, s.providers(), time.Now())
		for name, err := range failed {
			s.log.Warn("a secret cannot be renewed", "secret", name, "error", fault.Line(err))
		}
		if renewed {
			s.tellAll(s.ctx)
		}
	}
}
