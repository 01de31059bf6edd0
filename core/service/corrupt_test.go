package service_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/lifecycle"
	"capsem/core/service"
	"capsem/core/service/servicetest"
)

func TestACorruptRegistryIsMovedAsideAndMadeAgain(t *testing.T) {
	for name, text := range map[string]string{
		"cut": `{"vms":{"dev"`, "empty": "", "zeros": "\x00\x00\x00\x00", "other": `{"vms":[]}`, "alien field": `{"vms":{},"x":1}`,
	} {
		home := servicetest.Home(t)
		s, stop := again(t, home)
		create(t, s, api.ProvisionRequest{Name: "dev", RAMMB: 300, Env: map[string]string{"A": "b"}})
		create(t, s, api.ProvisionRequest{Name: "runs"})
		if _, err := s.Stop(t.Context(), "dev"); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := os.WriteFile(home.Registry(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, stop = again(t, home)
		if got := states(s); got != "dev=Stopped runs=Running" || info(t, s, "dev").RAMMB != 300 {
			t.Errorf("%s: found %s", name, got)
		}
		aside, err := filepath.Glob(home.Registry() + ".corrupt-*")
		if err != nil || len(aside) != 1 {
			t.Fatalf("%s: aside are %v (%v)", name, aside, err)
		}
		if kept, err := os.ReadFile(aside[0]); err != nil || string(kept) != text {
			t.Errorf("%s: kept %q (%v)", name, kept, err)
		}
		if notices := strings.Join(s.Status().Notices, "\n"); !strings.Contains(notices, aside[0]) {
			t.Errorf("%s: status says %q", name, notices)
		}
		stop()
		s, _ = again(t, home)
		if n := s.Status().Notices; len(n) != 0 || names(t, home) == "" {
			t.Errorf("%s: the list that was made again is not whole: %v", name, n)
		}
	}
}

func TestALostOrCorruptDescriptionIsMadeAgainFromTheRegistry(t *testing.T) {
	home := servicetest.Home(t)
	s, stop := again(t, home)
	for _, name := range []string{"corrupt", "lost", "both"} {
		create(t, s, api.ProvisionRequest{Name: name, RAMMB: 300})
		if _, err := s.Stop(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := os.WriteFile(home.Persistent("corrupt").Spec(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(home.Persistent("lost").Spec()); err != nil {
		t.Fatal(err)
	}
	s, stop = again(t, home)
	if got := states(s); got != "corrupt=Stopped lost=Stopped both=Stopped" || info(t, s, "corrupt").RAMMB != 300 || info(t, s, "lost").RAMMB != 300 {
		t.Errorf("found %s", got)
	}
	stop()
	// With neither, the VM is there with the sizes of a new one, and that is said.
	if err := os.Remove(home.Persistent("both").Spec()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home.Registry(), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ = again(t, home)
	vm := info(t, s, "both")
	if vm.RAMMB != 512 || vm.Status != lifecycle.Stopped || !strings.Contains(strings.Join(s.Status().Notices, "\n"), "defaults") {
		t.Errorf("found %+v, %v", vm, s.Status().Notices)
	}
	if _, err := s.Resume(t.Context(), "both", false); err != nil {
		t.Errorf("resume: %v", err)
	}
}

func TestANamedVMWhoseDirectoryIsGoneIsStillListed(t *testing.T) {
	home := servicetest.Home(t)
	s, stop := again(t, home)
	create(t, s, api.ProvisionRequest{Name: "dev"})
	if _, err := s.Stop(t.Context(), "dev"); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := os.RemoveAll(home.Persistent("dev").Dir()); err != nil {
		t.Fatal(err)
	}
	s, _ = again(t, home)
	if vm := info(t, s, "dev"); vm.Status != lifecycle.Defunct || !strings.Contains(vm.LastError, "missing") {
		t.Errorf("found %+v", vm)
	}
	if err := s.Delete(t.Context(), "dev"); err != nil || states(s) != "" {
		t.Errorf("delete: %v", err)
	}
}

func TestOnlyTheNewestFailedVMsAreKept(t *testing.T) {
	s, home := start(t)
	var ids []string
	for range 7 {
		id := create(t, s, api.ProvisionRequest{})
		run(t, s, id, "die")
		await(t, "its end", func() bool { return states(s) == "" })
		ids = append(ids, id)
	}
	entries, err := os.ReadDir(home.Failed())
	if err != nil || len(entries) != 5 {
		t.Errorf("%d are kept (%v)", len(entries), err)
	}
	for i, id := range ids {
		if _, err := s.Logs(id, 1); (err == nil) != (i >= 2) {
			t.Errorf("logs of number %d: %v", i, err)
		}
	}
}

func TestWhatCannotBeReadIsNotTakenForCorrupt(t *testing.T) {
	home := servicetest.Home(t)
	s, stop := again(t, home)
	create(t, s, api.ProvisionRequest{Name: "dev", RAMMB: 300})
	if _, err := s.Stop(t.Context(), "dev"); err != nil {
		t.Fatal(err)
	}
	stop()
	// A directory cannot be read as a file, by root neither.
	away := func(path string) (back func()) {
		if err := errors.Join(os.Rename(path, path+".away"), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	back := away(home.Persistent("dev").Spec())
	s, stop = again(t, home)
	if vm := info(t, s, "dev"); vm.Status != lifecycle.Defunct || !strings.Contains(vm.LastError, "cannot be read") || vm.RAMMB != 300 {
		t.Errorf("found %+v", vm)
	}
	if _, err := s.Resume(t.Context(), "dev", false); err == nil {
		t.Error("it was started")
	}
	stop()
	back()
	back = away(home.Registry())
	if _, err := service.New(t.Context(), servicetest.Options(t, home)); err == nil || !strings.Contains(fault.Line(err), "cannot be read") {
		t.Errorf("a list that cannot be read: %v", err)
	}
	back()
	s, _ = again(t, home)
	if vm := info(t, s, "dev"); vm.Status != lifecycle.Stopped || vm.RAMMB != 300 {
		t.Errorf("afterwards %+v", vm)
	}
}
