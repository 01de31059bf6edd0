package service_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"capsem/core/api"
	"capsem/core/paths"
	"capsem/core/service"
	"capsem/core/service/servicetest"
)

// cut does something with a service that stops dead at its nth step, and reports the step; "" when there was none.
func cut(t *testing.T, home paths.Home, n int, prepare func(s *service.Service) string, do func(s *service.Service, id string)) string {
	t.Helper()
	opts, at := servicetest.Options(t, home), ""
	var mu sync.Mutex
	armed, dead := false, make(chan struct{})
	service.SetBefore(&opts, func(step string) {
		mu.Lock()
		defer mu.Unlock()
		if !armed {
			return
		}
		if n--; n == 0 {
			at = step
			close(dead)
			runtime.Goexit() // nothing of what was to follow is done
		}
	})
	s, stop := servicetest.Start(t, opts)
	id := prepare(s)
	mu.Lock()
	armed = true
	mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(s, id)
	}()
	select {
	case <-done:
	case <-dead:
	}
	stop() // whoever waits for what was cut off gives up
	<-done
	mu.Lock()
	defer mu.Unlock()
	return at
}

// names is what the registry lists.
func names(t *testing.T, home paths.Home) string {
	t.Helper()
	text, err := os.ReadFile(home.Registry())
	if err != nil {
		t.Fatal(err)
	}
	var reg struct{ VMs map[string]service.Entry }
	if err := json.Unmarshal(text, &reg); err != nil {
		t.Fatal(err)
	}
	var out []string
	for name := range reg.VMs {
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

// tidy checks that a service that came after has nothing half-made: registry, directories and list agree.
func tidy(t *testing.T, s *service.Service, home paths.Home, at string) {
	t.Helper()
	var named []string
	for _, vm := range s.List().Sandboxes {
		if vm.Persistent {
			named = append(named, vm.ID)
		}
		if _, err := os.Stat(vm.Dir); err != nil {
			t.Errorf("%s: %s has no directory: %v", at, vm.ID, err)
		}
	}
	if got := names(t, home); got != strings.Join(named, " ") {
		t.Errorf("%s: the registry has %q, the list %v", at, got, named)
	}
	for _, parent := range []string{home.Sessions(), home.PersistentDir()} {
		entries, err := os.ReadDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if _, err := s.Info(e.Name()); err != nil {
				t.Errorf("%s: left %s", at, e.Name())
			}
		}
	}
}

// cutCase is something that is cut off at each of its steps.
type cutCase struct {
	before func(*service.Service) string
	do     func(s *service.Service, id string)
	// may lists what a new service may find.
	may []string
}

func cuts(t *testing.T) map[string]cutCase {
	t.Helper()
	nothing := func(*service.Service) string { return "" }
	vm := func(req api.ProvisionRequest) func(*service.Service) string {
		return func(s *service.Service) string { return create(t, s, req) }
	}
	return map[string]cutCase{
		"create": {
			nothing, func(s *service.Service, _ string) { _, _ = s.Provision(t.Context(), api.ProvisionRequest{Name: "new"}) },
			[]string{"", "new=Stopped", "new=Booting", "new=Running", "new=Defunct"},
		},
		"persist": {
			vm(api.ProvisionRequest{}), func(s *service.Service, id string) { _ = s.Persist(t.Context(), id, "new") },
			[]string{"tmp=Running", "new=Running"},
		},
		"delete": {
			vm(api.ProvisionRequest{Name: "old"}), func(s *service.Service, id string) { _ = s.Delete(t.Context(), id) },
			[]string{"", "old=Stopped", "old=Running"},
		},
		"stop an unnamed one": {
			vm(api.ProvisionRequest{}), func(s *service.Service, id string) { _ = s.Delete(t.Context(), id) },
			[]string{"", "tmp=Running"},
		},
		"fork": {
			vm(api.ProvisionRequest{Name: "vm"}), func(s *service.Service, id string) { _, _ = s.Fork(t.Context(), id, api.ForkRequest{Image: "image"}) },
			[]string{"vm=Running"},
		},
		"create of an image": {
			func(s *service.Service) string {
				id := create(t, s, api.ProvisionRequest{})
				_, _ = s.Fork(t.Context(), id, api.ForkRequest{Image: "image"})
				_ = s.Delete(t.Context(), id)
				return ""
			}, func(s *service.Service, _ string) {
				_, _ = s.Provision(t.Context(), api.ProvisionRequest{Name: "new", Image: "image"})
			}, // Suspended: it has the image's memory still, and goes on from that
			[]string{"", "new=Stopped", "new=Booting", "new=Running", "new=Defunct", "new=Suspended"},
		},
		"suspend": {
			vm(api.ProvisionRequest{Name: "vm"}), func(s *service.Service, id string) { _, _ = s.Suspend(t.Context(), id) },
			[]string{"vm=Running", "vm=Suspended"},
		},
	}
}

func TestPowerLostAtAnyStepLeavesTheOldOrTheNew(t *testing.T) {
	for what, c := range cuts(t) {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				home := servicetest.Home(t)
				at := cut(t, home, n, c.before, c.do)
				s, stop := servicetest.Start(t, servicetest.Options(t, home))
				got := states(s)
				if i := strings.Index(got, "-tmp="); i >= 0 {
					got = "tmp" + got[i+4:]
				}
				place := "step " + strconv.Itoa(n) + " (" + at + ")"
				if !slices.Contains(c.may, got) {
					t.Errorf("%s: found %q", place, got)
				}
				tidy(t, s, home, place)
				stop()
				if at == "" {
					if n < 3 && what != "suspend" { // which is the worker's
						t.Errorf("only %d steps", n-1)
					}
					break
				}
			}
		})
	}
}

func TestPowerLostAtAnyStepOfARewindLeavesTheOldOrTheNew(t *testing.T) {
	for _, down := range []bool{false, true} {
		for n := 1; ; n++ {
			home := servicetest.Home(t)
			at := cut(t, home, n, func(s *service.Service) string {
				id := create(t, s, api.ProvisionRequest{Name: "vm"})
				say(t, s, id, "disk good")
				say(t, s, id, "memory fresh")
				if _, err := s.Checkpoint(t.Context(), id, api.CheckpointRequest{Name: "point"}); err != nil {
					t.Fatal(err)
				}
				say(t, s, id, "disk bad")
				say(t, s, id, "memory stale")
				if down {
					if _, err := s.Suspend(t.Context(), id); err != nil {
						t.Fatal(err)
					}
				}
				return id
			}, func(s *service.Service, id string) { _, _ = s.Rewind(t.Context(), id, "point") })
			s, stop := servicetest.Start(t, servicetest.Options(t, home))
			place := "step " + strconv.Itoa(n) + " (" + at + ")"
			tidy(t, s, home, place)
			if _, err := s.Resume(t.Context(), "vm", false); err != nil {
				t.Fatalf("%s: %v", place, err)
			}
			got := say(t, s, "vm", "what")
			if got != "good|fresh\n" && (got != "bad|stale\n" || at == "") {
				// A VM that was killed for the rewind, and then not rewound, has its disk.
				if got != "bad|\n" || at != "commit rewind" {
					t.Errorf("%s: the VM holds %q", place, got)
				}
			}
			for _, left := range []string{"rewind", "rewind.new"} {
				if _, err := os.Stat(filepath.Join(home.Persistent("vm").Dir(), left)); err == nil {
					t.Errorf("%s: left %s", place, left)
				}
			}
			stop()
			if at == "" {
				if n < 5 {
					t.Errorf("only %d steps", n-1)
				}
				break
			}
		}
	}
}
