package service_test

import (
	"os"
	"path/filepath"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
)

func TestOnlyDirectoriesThatAnybodyWouldShareAreShared(t *testing.T) {
	s, home := start(t)
	own := t.TempDir()
	t.Setenv("HOME", own)
	work := filepath.Join(own, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	file, link := filepath.Join(own, "file"), filepath.Join(own, "link")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(home.Dir(), link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		host, guest string
		want        fault.Code
	}{
		"the file system":         {"/", "/mnt/x", fault.Forbidden},
		"the home directory":      {own, "/mnt/x", fault.Forbidden},
		"above it":                {filepath.Dir(own), "/mnt/x", fault.Forbidden},
		"capsem's own":            {home.Dir(), "/mnt/x", fault.Forbidden},
		"in capsem's own":         {home.Run(), "/mnt/x", fault.Forbidden},
		"a link to capsem's own":  {link, "/mnt/x", fault.Forbidden},
		"nothing":                 {filepath.Join(own, "nothing"), "/mnt/x", fault.NotFound},
		"a file":                  {file, "/mnt/x", fault.Invalid},
		"relative":                {"work", "/mnt/x", fault.Invalid},
		"not clean":               {work + "/../work", "/mnt/x", fault.Invalid},
		"the guest's root":        {work, "/", fault.Invalid},
		"the guest's home":        {work, "/root", fault.Invalid},
		"among the guest's files": {work, "/proc/x", fault.Invalid},
		"a name with NUL":         {work, "/mnt/\x00", fault.Invalid},
	} {
		_, err := s.Provision(t.Context(), api.ProvisionRequest{Mounts: []proto.Mount{{Host: c.host, Guest: c.guest}}})
		if !fault.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	twice := []proto.Mount{{Host: work, Guest: "/mnt/x"}, {Host: work, Guest: "/mnt/x"}}
	if _, err := s.Provision(t.Context(), api.ProvisionRequest{Mounts: twice}); !fault.Is(err, fault.Invalid) {
		t.Errorf("two at one place: %v", err)
	}
	id := create(t, s, api.ProvisionRequest{Name: "vm", Mounts: twice[:1]})
	forced := create(t, s, api.ProvisionRequest{Mounts: []proto.Mount{{Host: own, Guest: "/mnt/own"}}, ForceMounts: true})
	if vm := info(t, s, id); len(vm.Mounts) != 1 || vm.Mounts[0].Host != work || len(info(t, s, forced).Mounts) != 1 {
		t.Errorf("%+v", vm)
	}
	if _, err := s.Fork(t.Context(), id, api.ForkRequest{Image: "image"}); err != nil {
		t.Fatal(err)
	}
	child := create(t, s, api.ProvisionRequest{Image: "image", Mounts: []proto.Mount{{Host: work, Guest: "/mnt/more"}}})
	if vm := info(t, s, child); len(vm.Mounts) != 2 || vm.Mounts[0].Guest != "/mnt/x" || vm.Mounts[1].Guest != "/mnt/more" {
		t.Errorf("a VM of an image: %+v", vm.Mounts)
	}
	if _, err := s.Provision(t.Context(), api.ProvisionRequest{Image: "image", Mounts: twice[:1]}); !fault.Is(err, fault.Conflict) {
		t.Errorf("at a place that the image shares: %v", err)
	}
}
