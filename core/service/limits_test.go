package service_test

import (
	"strings"
	"sync"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/service/servicetest"
)

func TestBadRequestsSayWhatTheLimitIs(t *testing.T) {
	s, _ := start(t)
	long := strings.Repeat("x", 65)
	for name, c := range map[string]struct {
		req  api.ProvisionRequest
		code fault.Code
		says string
	}{
		"no CPU":         {api.ProvisionRequest{CPUs: -1}, fault.OutOfRange, "1-8"},
		"many CPUs":      {api.ProvisionRequest{CPUs: 9}, fault.OutOfRange, "1-8"},
		"little RAM":     {api.ProvisionRequest{RAMMB: 255}, fault.OutOfRange, "256-16384"},
		"much RAM":       {api.ProvisionRequest{RAMMB: 16385}, fault.OutOfRange, "256-16384"},
		"much disk":      {api.ProvisionRequest{DiskMB: 1 << 30}, fault.OutOfRange, "1024-131072"},
		"name too long":  {api.ProvisionRequest{Name: long}, fault.Invalid, "1-64"},
		"name with dot":  {api.ProvisionRequest{Name: "a.b"}, fault.Invalid, "a.b"},
		"name upwards":   {api.ProvisionRequest{Name: "../x"}, fault.Invalid, "../x"},
		"name of a tmp":  {api.ProvisionRequest{Name: "my-tmp"}, fault.Invalid, "-tmp"},
		"no name":        {api.ProvisionRequest{Persistent: true}, fault.Invalid, "name"},
		"blocked env":    {api.ProvisionRequest{Env: map[string]string{"LD_PRELOAD": "x"}}, fault.Invalid, "LD_PRELOAD"},
		"env with equal": {api.ProvisionRequest{Env: map[string]string{"A=B": "x"}}, fault.Invalid, "A=B"},
	} {
		_, err := s.Provision(t.Context(), c.req)
		if !fault.Is(err, c.code) || !strings.Contains(fault.Line(err), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if states(s) != "" {
		t.Errorf("left: %s", states(s))
	}
}

func TestTheNumberOfVMsIsLimitedHoweverTheyStart(t *testing.T) {
	s, _ := start(t) // at most 4
	create(t, s, api.ProvisionRequest{Name: "down"})
	if _, err := s.Stop(t.Context(), "down"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 8 {
		wg.Go(func() {
			_, err := s.Provision(t.Context(), api.ProvisionRequest{})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case !fault.Is(err, fault.LimitReached) || !strings.Contains(fault.Line(err), "limit is 4"):
				t.Errorf("one too many: %v", err)
			}
		})
	}
	wg.Wait()
	if made != 4 {
		t.Errorf("%d VMs run, the limit is 4", made)
	}
	if _, err := s.Resume(t.Context(), "down", false); !fault.Is(err, fault.LimitReached) {
		t.Errorf("resuming a fifth: %v", err)
	}
	if st := s.Status(); st.Running != 4 || st.Stopped != 1 || st.MaxVMs != 4 {
		t.Errorf("status: %+v", st)
	}
}

func TestNamesAreTakenOnceAndUnknownOnesNameTheNearest(t *testing.T) {
	s, _ := start(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 3 {
		wg.Go(func() {
			_, err := s.Provision(t.Context(), api.ProvisionRequest{Name: "builder"})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if !fault.Is(err, fault.Conflict) {
				t.Errorf("taken: %v", err)
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("%d VMs have the same name", made)
	}
	if _, err := s.Info("bulider"); !fault.Is(err, fault.NotFound) || !strings.Contains(fault.Line(err), "did you mean builder") {
		t.Errorf("a slip: %v", err)
	}
	if _, err := s.Info("../../etc"); !fault.Is(err, fault.NotFound) {
		t.Errorf("nonsense: %v", err)
	}
	if err := s.Delete(t.Context(), "nobody"); !fault.Is(err, fault.NotFound) {
		t.Errorf("delete: %v", err)
	}
	if _, err := s.Restart(t.Context(), create(t, s, api.ProvisionRequest{})); !fault.Is(err, fault.Conflict) {
		t.Errorf("restart of an unnamed one: %v", err)
	}
}

func TestHomeOfSomebodyElseIsRefused(t *testing.T) {
	home := servicetest.Home(t)
	if err := chown(home.Dir(), 65534); err != nil {
		return // only root can give a directory away
	}
	if s, err := startIn(home); !fault.Is(err, fault.Forbidden) {
		t.Errorf("got %v, %v", s, err)
	}
}
