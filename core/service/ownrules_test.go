package service_test

import (
	"os"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
)

func TestAVMsOwnRulesAreKeptWithItAndWithItsForks(t *testing.T) {
	s, home := start(t)
	const rules = "[[rule]]\nid = \"no\"\neffect = \"deny\"\nhosts = [\"a.example\"]\n"
	id := create(t, s, api.ProvisionRequest{Name: "narrow", Policy: rules})
	text, err := os.ReadFile(home.Persistent(id).Policy())
	if err != nil || string(text) != rules {
		t.Fatalf("%q: %v", text, err)
	}
	edited := rules + "# edited\n"
	if err := os.WriteFile(home.Persistent(id).Policy(), []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fork(t.Context(), id, api.ForkRequest{Image: "image"}); err != nil {
		t.Fatal(err)
	}
	child := create(t, s, api.ProvisionRequest{Name: "child", Image: "image"})
	if text, err := os.ReadFile(home.Persistent(child).Policy()); err != nil || string(text) != edited {
		t.Errorf("the child has %q: %v", text, err)
	}
	other := create(t, s, api.ProvisionRequest{Name: "other", Image: "image", Policy: rules})
	if text, err := os.ReadFile(home.Persistent(other).Policy()); err != nil || string(text) != rules {
		t.Errorf("the child with rules of its own has %q: %v", text, err)
	}
	if _, err := s.Provision(t.Context(), api.ProvisionRequest{Policy: "[[rule]]\neffect = \"perhaps\""}); !fault.Is(err, fault.Invalid) {
		t.Errorf("rubbish as rules: %v", err)
	}
}
