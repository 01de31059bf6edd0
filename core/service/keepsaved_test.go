package service_test

import (
	"os"
	"path/filepath"
	"testing"

	"capsem/core/api"
	"capsem/core/lifecycle"
	"capsem/core/service/servicetest"
)

func TestAVMThatCannotGoOnIsStillSuspended(t *testing.T) {
	home := servicetest.Home(t)
	s, stop := servicetest.Start(t, servicetest.Options(t, home))
	create(t, s, api.ProvisionRequest{Name: "vm"})
	say(t, s, "vm", "disk good")
	say(t, s, "vm", "memory fresh")
	if _, err := s.Suspend(t.Context(), "vm"); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(home.Persistent("vm").Dir(), "suspended", "state")
	whole, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(state, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(append([]byte{whole[0] ^ 1}, whole[1:]...))
	for range 2 {
		if _, err := s.Resume(t.Context(), "vm", false); err == nil {
			t.Fatal("it went on from a damaged state")
		}
		await(t, "the end of the worker", func() bool { return states(s) == "vm=Suspended" })
		if vm := info(t, s, "vm"); vm.Status != lifecycle.Suspended || vm.LastError == "" {
			t.Errorf("%s: %q", vm.Status, vm.LastError)
		}
		stop()
		s, stop = servicetest.Start(t, servicetest.Options(t, home))
		if vm := info(t, s, "vm"); vm.Status != lifecycle.Suspended {
			t.Errorf("after a restart: %s", vm.Status)
		}
	}
	put(whole)
	if _, err := s.Resume(t.Context(), "vm", false); err != nil {
		t.Fatal(err)
	}
	if got := say(t, s, "vm", "what"); got != "good|fresh\n" {
		t.Errorf("the VM holds %q", got)
	}
	stop()
}
