package service_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
	"capsem/core/service/servicetest"
)

func TestTheOwnerSaysWhichSecretsAVMHas(t *testing.T) {
	home := servicetest.Home(t)
	opts := servicetest.Options(t, home)
	s, stop := servicetest.Start(t, opts)
	for name, req := range map[string]api.SecretRequest{
		"hub": {Value: "gh" + "p_" + strings.Repeat("Va1", 12)}, "lab": {Value: "glp" + "at-" + strings.Repeat("xY9-", 5)},
	} {
		if _, err := s.SetSecret(t.Context(), name, req); err != nil {
			t.Fatal(err)
		}
	}
	has := func(id string, hub, lab bool) {
		t.Helper()
		for name, want := range map[string]bool{"GH_TOKEN": hub, "GITLAB_TOKEN": lab} {
			if got := say(t, s, id, "env "+name) != "\n"; got != want {
				t.Errorf("%s has %s: %v, want %v", id, name, got, want)
			}
		}
	}
	for name, secrets := range map[string][]string{"all": nil, "one": {"hub"}, "none": {}} {
		create(t, s, api.ProvisionRequest{Name: name, Secrets: secrets})
	}
	has("all", true, true)
	if got := info(t, s, "all").Secrets; got != nil {
		t.Errorf("all is said to have %v", got)
	}
	if err := s.Delete(t.Context(), "all"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fork(t.Context(), "none", api.ForkRequest{Image: "image"}); err != nil {
		t.Fatal(err)
	}
	create(t, s, api.ProvisionRequest{Name: "child", Image: "image"})
	create(t, s, api.ProvisionRequest{Name: "chosen", Image: "image", Secrets: []string{"lab"}})
	check := func() {
		t.Helper()
		has("one", true, false)
		has("none", false, false)
		has("child", false, false)
		has("chosen", false, true)
	}
	check()
	for id, want := range map[string][]string{"one": {"hub"}, "child": {}} {
		if got := info(t, s, id).Secrets; !reflect.DeepEqual(got, want) {
			t.Errorf("%s is said to have %#v", id, got)
		}
	}
	// A change of the secrets, and another service, do not change it.
	if _, err := s.SetSecret(t.Context(), "hub", api.SecretRequest{Value: "gh" + "p_" + strings.Repeat("wB2", 12)}); err != nil {
		t.Fatal(err)
	}
	check()
	stop()
	s, _ = servicetest.Start(t, opts)
	if _, err := s.Restart(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	check()
}

func TestOnlySecretsOfVMsCanBeChosen(t *testing.T) {
	s, _ := servicetest.Start(t, servicetest.Options(t, servicetest.Home(t)))
	if _, err := s.SetSecret(t.Context(), "servers", api.SecretRequest{Kind: "mcp", Value: "what only servers get"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Provision(t.Context(), api.ProvisionRequest{Name: "x", Secrets: []string{"nope"}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a secret that is not there: %v", err)
	}
	if _, err := s.Provision(t.Context(), api.ProvisionRequest{Name: "x", Secrets: []string{"servers"}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a secret of MCP servers: %v", err)
	}
}

func TestManyLongSecretsKeepNoVMFromStarting(t *testing.T) {
	s, _ := servicetest.Start(t, servicetest.Options(t, servicetest.Home(t)))
	last := fmt.Sprintf("s%02d", proto.MaxGrants-1)
	for i := range proto.MaxGrants {
		req := api.SecretRequest{Kind: "generic", Hosts: []string{"x.test"}, Value: fmt.Sprintf("%02d%s", i, strings.Repeat("aZ3q", 1000))}
		name := fmt.Sprintf("s%02d", i)
		if name == last {
			req.Env = []string{"LAST"}
		}
		if _, err := s.SetSecret(t.Context(), name, req); err != nil {
			t.Fatal(err)
		}
	}
	vm := create(t, s, api.ProvisionRequest{Name: "vm"})
	if got := say(t, s, vm, "env LAST"); len(got) != 4002+1 {
		t.Errorf("the last of them has %d letters", len(got))
	}
}
