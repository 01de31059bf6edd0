package service_test

import (
	"strconv"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
)

func TestVariablesOfAnImageAndOfARequestAreBoundedTogether(t *testing.T) {
	s, _ := start(t)
	many := func(prefix string) map[string]string {
		env := map[string]string{}
		for i := range 100 {
			env[prefix+strconv.Itoa(i)] = "x"
		}
		return env
	}
	id := create(t, s, api.ProvisionRequest{Name: "vm", Env: many("A")})
	if _, err := s.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fork(t.Context(), id, api.ForkRequest{Image: "work"}); err != nil {
		t.Fatal(err)
	}
	create(t, s, api.ProvisionRequest{Image: "work", Env: many("A")}) // the same ones
	if _, err := s.Provision(t.Context(), api.ProvisionRequest{Image: "work", Env: many("B")}); !fault.Is(err, fault.Invalid) {
		t.Errorf("200 variables: %v", err)
	}
}
