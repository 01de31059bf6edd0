package service_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/service/servicetest"
)

// smallDisk puts a home on a disk of its own, in megabytes. False means that this user may not mount one.
func smallDisk(t *testing.T, home paths.Home, mb string) bool {
	t.Helper()
	if err := syscall.Mount("tmpfs", home.Dir(), "tmpfs", 0, "mode=0700,size="+mb+"m"); err != nil {
		return os.Geteuid() == 0 && failed(t, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(home.Dir(), syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return true
}

func failed(t *testing.T, err error) bool {
	t.Errorf("mount: %v", err)
	return false
}

// fill takes what space is left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for size := len(buf); size > 0; {
		if _, err := f.Write(buf[:size]); err != nil {
			size /= 2
		}
	}
}

func TestAFullDiskIsSaidAndNothingIsLost(t *testing.T) {
	home := servicetest.Home(t)
	if !smallDisk(t, home, "280") {
		return // only root can mount one
	}
	s, stop := again(t, home)
	create(t, s, api.ProvisionRequest{Name: "dev"})
	create(t, s, api.ProvisionRequest{Name: "old"})
	tmp := create(t, s, api.ProvisionRequest{})
	fill(t, home.Dir()+"/filler")
	for what, err := range map[string]error{
		"create":  second(s.Provision(t.Context(), api.ProvisionRequest{})),
		"persist": s.Persist(t.Context(), tmp, "mine"),
		"restart": second(s.Restart(t.Context(), "old")),
	} {
		if !fault.Is(err, fault.NoSpace) || !strings.Contains(fault.Line(err), "space") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := states(s); got != "dev=Running old=Stopped "+tmp+"=Running" {
		t.Errorf("then: %s", got)
	}
	stop()
	// A service that starts on a full disk says so and harms nothing, or works.
	if err := os.Remove(home.Dir() + "/filler"); err != nil {
		t.Fatal(err)
	}
	s, _ = again(t, home)
	// That old was stopped may have been too much to write down.
	got := strings.Replace(states(s), "old=Defunct", "old=Stopped", 1)
	if got != "dev=Running old=Stopped "+tmp+"=Running" {
		t.Errorf("after the disk was emptied: %s", got)
	}
	fill(t, home.Dir()+"/filler")
	// What frees space works on a full disk.
	for _, id := range []string{"dev", "old", tmp} {
		if err := s.Delete(t.Context(), id); err != nil {
			t.Errorf("delete %s: %v", id, err)
		}
	}
	if got := names(t, home); got != "" || states(s) != "" {
		t.Errorf("left in the registry %q, in the list %q", got, states(s))
	}
}

func second[T any](_ T, err error) error { return err }
